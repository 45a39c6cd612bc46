//! The open table as a state machine: events and the time in, decisions out.
