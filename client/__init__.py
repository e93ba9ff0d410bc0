"""The client: what user programs call, and the loop that talks to the scheduler for them."""
