"""What the processes of one machine share: numbers in memory, and limits that hold over all of them."""
