"""``lightmeter ledger ship``: copies the ledger from a running gateway to where it outlives the store.

A walk looks at the heads of all teams' ledgers, a page of teams at a time. Where a ledger goes on after the last entry
that the destination has, its entries are read in batches, written, and reported to the gateway, which may trim them
then. The place in each ledger is an entry's id: ids of one stream only grow, whatever the clocks do.

source        the gateway, by its admin API
shipper       the walk, and patience with whoever is away
batch         entries on their way, and the places that they take each team from and to
sink          what a destination has to do
jsonl         files of lines
postgres      PostgreSQL, and the schema there
cloud_events  events over HTTPS
"""
