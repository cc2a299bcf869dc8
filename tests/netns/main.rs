//! Real kernels and real clients, in network namespaces of their own. Needs root; skips loudly without.

fn main() {}
