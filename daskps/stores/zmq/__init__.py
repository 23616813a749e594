"""``zmq://``: objects stay in the process that stored them."""
