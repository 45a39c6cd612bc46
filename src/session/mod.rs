//! The sans-io core of both sides.
