-- Is the store there, does it run scripts, and may they write? A replica or a full store answers with an error.
--
-- KEYS[1]  a key of no meaning (string)
-- ARGV[1]  an id for the call, given back in the reply
--
-- Reply: {id}
redis.call('SET', KEYS[1], '1', 'PX', 1000)
return {ARGV[1]}
