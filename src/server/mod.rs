//! The server: exports, file work, access rules.
