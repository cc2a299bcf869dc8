//! Privileges: what is kept after the ports are bound.
