-- Is the store there, and does it run scripts?
--
-- ARGV[1]  an id for the call, given back in the reply
--
-- Reply: {id}
return {ARGV[1]}
