-- Version 1. Run once, in one transaction, with the schema first in search_path.

-- One row for each ledger entry. `at` is when it was written, to the millisecond, and part of its id: unique with it is as
-- unique without it. `day` is the UTC day that the request was admitted in, whose quota it counts in.
create table entries (
  team text not null,
  entry text not null,
  at timestamptz not null,
  day date not null,
  kind text not null,
  key text not null,
  request text,
  outcome text,
  endpoint text,
  model text,
  asked_model text,
  provider text,
  images bigint not null,
  charged bigint not null,
  overage bigint not null,
  granted bigint not null,
  refunds text,
  corrects text,
  reason text,
  units_per_usd numeric,
  facts jsonb not null,
  primary key (team, entry, at)
) partition by range (at);

create index entries_day on entries (day, team);
create index entries_request on entries (request);

comment on table entries is 'Lightmeter''s ledger; a refund has negative figures';
comment on column entries.day is 'UTC day of the request''s admission; of a grant, of the grant';
comment on column entries.key is 'empty where it is about the whole team';
comment on column entries.overage is 'units of charged beyond what was reserved';
comment on column entries.granted is 'units that a grant added, or took back';
comment on column entries.units_per_usd is 'what a US dollar was in quota units when it was shipped';
comment on column entries.facts is 'the whole entry, as the admin API has it';

-- How far each team has been shipped. Written together with the rows.
create table places (
  team text primary key,
  entry text not null,
  at timestamptz not null default now()
);

-- Units are summed up before they are dollars: sums of integers are exact.
create view spend_at_rates as
select team, key, model, day, units_per_usd,
  count(*) filter (where kind = 'request') as requests,
  sum(images) as images,
  sum(charged) as units,
  coalesce(-sum(charged) filter (where kind = 'refund'), 0) as refunded_units,
  sum(overage) as overage_units
from entries
where kind <> 'grant'
group by team, key, model, day, units_per_usd;

create view spend as
select team, key, model, day,
  sum(requests) as requests, sum(images) as images, sum(units) as units, sum(refunded_units) as refunded_units,
  sum(overage_units) as overage_units, sum(units / units_per_usd) as usd
from spend_at_rates
group by team, key, model, day;

create view spend_by_team as
select team,
  sum(requests) as requests, sum(images) as images, sum(units) as units, sum(refunded_units) as refunded_units,
  sum(overage_units) as overage_units, sum(units / units_per_usd) as usd
from (
  select team, units_per_usd, sum(requests) as requests, sum(images) as images, sum(units) as units,
    sum(refunded_units) as refunded_units, sum(overage_units) as overage_units
  from spend_at_rates group by team, units_per_usd
) as at_rates
group by team;

create view spend_by_key as
select team, key,
  sum(requests) as requests, sum(images) as images, sum(units) as units, sum(refunded_units) as refunded_units,
  sum(overage_units) as overage_units, sum(units / units_per_usd) as usd
from (
  select team, key, units_per_usd, sum(requests) as requests, sum(images) as images, sum(units) as units,
    sum(refunded_units) as refunded_units, sum(overage_units) as overage_units
  from spend_at_rates group by team, key, units_per_usd
) as at_rates
group by team, key;

create view spend_by_model as
select model,
  sum(requests) as requests, sum(images) as images, sum(units) as units, sum(refunded_units) as refunded_units,
  sum(overage_units) as overage_units, sum(units / units_per_usd) as usd
from (
  select model, units_per_usd, sum(requests) as requests, sum(images) as images, sum(units) as units,
    sum(refunded_units) as refunded_units, sum(overage_units) as overage_units
  from spend_at_rates group by model, units_per_usd
) as at_rates
group by model;

create view spend_by_day as
select day,
  sum(requests) as requests, sum(images) as images, sum(units) as units, sum(refunded_units) as refunded_units,
  sum(overage_units) as overage_units, sum(units / units_per_usd) as usd
from (
  select day, units_per_usd, sum(requests) as requests, sum(images) as images, sum(units) as units,
    sum(refunded_units) as refunded_units, sum(overage_units) as overage_units
  from spend_at_rates group by day, units_per_usd
) as at_rates
group by day;

create view grants as
select team, key, day, sum(granted) as units from entries where kind = 'grant' group by team, key, day;

-- Empty, unless the store lost entries after they were shipped: the gateways post those again, under other ids.
create view requests_twice as
select team, request, count(*) as entries, min(entry) as first_entry, max(entry) as last_entry, sum(charged) as units
from entries where kind = 'request' group by team, request having count(*) > 1;
