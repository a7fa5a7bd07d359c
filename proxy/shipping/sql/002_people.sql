-- Version 2: whom requests were for.

create view spend_by_user as
select team, end_user,
  sum(requests) as requests, sum(images) as images, sum(units) as units, sum(refunded_units) as refunded_units,
  sum(overage_units) as overage_units, sum(units / units_per_usd) as usd
from (
  select team, facts ->> 'user' as end_user, units_per_usd,
    count(*) filter (where kind = 'request') as requests, sum(images) as images, sum(charged) as units,
    coalesce(-sum(charged) filter (where kind = 'refund'), 0) as refunded_units, sum(overage) as overage_units
  from entries where kind <> 'grant' and facts ? 'user'
  group by team, facts ->> 'user', units_per_usd
) as at_rates
group by team, end_user;

-- A request with several tags counts in each of them.
create view spend_by_tag as
select team, tag, value,
  sum(requests) as requests, sum(images) as images, sum(units) as units, sum(refunded_units) as refunded_units,
  sum(overage_units) as overage_units, sum(units / units_per_usd) as usd
from (
  select team, tags.key as tag, tags.value, units_per_usd,
    count(*) filter (where kind = 'request') as requests, sum(images) as images, sum(charged) as units,
    coalesce(-sum(charged) filter (where kind = 'refund'), 0) as refunded_units, sum(overage) as overage_units
  from entries cross join lateral jsonb_each_text(facts -> 'tags') as tags
  where kind <> 'grant' and facts ? 'tags'
  group by team, tags.key, tags.value, units_per_usd
) as at_rates
group by team, tag, value;
