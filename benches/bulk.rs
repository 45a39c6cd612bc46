//! Placeholder that is replaced by the benchmark before it lands.

fn main() {}
