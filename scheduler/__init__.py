"""The scheduler: decides which node runs what; never runs or unpickles user code."""
