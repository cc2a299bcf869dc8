//! What is on the LAN at this moment, followed by netlink.
