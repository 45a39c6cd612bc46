//! The phases of holders and opens, and every transition between them, as data.
//!
//! A pair of phase and event that has no row cannot happen; the table checks that in debug builds and stays in
//! its phase otherwise.

/// How a holder stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HolderPhase {
    /// A channel reaches it, or did when its session was last heard of.
    Live,
    /// No channel reaches its session; it waits until its deadline.
    Away,
    /// It takes no new operation and ends when nothing of it is executing.
    Draining,
    /// It is no more.
    Gone,
}

/// What happens to a holder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HolderEvent {
    /// The last channel of its session is gone.
    SessionAway,
    /// A channel reaches its session again.
    SessionBack,
    /// It is closed, replaced or ended, or the grace of its open is over.
    Stop,
    /// Nothing of it is executing.
    Idle,
}

/// How an open stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OpenPhase {
    /// At least one holder is live.
    Held,
    /// Holders are away, and none is live: the grace time runs.
    Orphaned,
    /// All its holders drain; nobody can come back to it.
    Closing,
    /// It has no holder any more.
    Ended,
}

/// What an open finds when it looks at its holders after one of them has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OpenEvent {
    /// A holder is live.
    Reached,
    /// None is live, at least one is away.
    Unreached,
    /// All that are left drain.
    Stopped,
    /// None is left.
    Emptied,
}

type Row<P, E> = (P, E, P);

const HOLDER: &[Row<HolderPhase, HolderEvent>] = {
    use HolderEvent as E;
    use HolderPhase as P;
    &[
        (P::Live, E::SessionAway, P::Away),
        (P::Live, E::SessionBack, P::Live),
        (P::Live, E::Stop, P::Draining),
        (P::Live, E::Idle, P::Live),
        // The grace counts from the last disconnect: being away twice is being away once.
        (P::Away, E::SessionAway, P::Away),
        (P::Away, E::SessionBack, P::Live),
        (P::Away, E::Stop, P::Draining),
        // What was received before the channel broke may still run.
        (P::Away, E::Idle, P::Away),
        (P::Draining, E::SessionAway, P::Draining),
        (P::Draining, E::SessionBack, P::Draining),
        (P::Draining, E::Stop, P::Draining),
        (P::Draining, E::Idle, P::Gone),
    ]
};

const OPEN: &[Row<OpenPhase, OpenEvent>] = {
    use OpenEvent as E;
    use OpenPhase as P;
    &[
        (P::Held, E::Reached, P::Held),
        (P::Held, E::Unreached, P::Orphaned),
        (P::Held, E::Stopped, P::Closing),
        (P::Held, E::Emptied, P::Ended),
        (P::Orphaned, E::Reached, P::Held),
        (P::Orphaned, E::Unreached, P::Orphaned),
        (P::Orphaned, E::Stopped, P::Closing),
        (P::Orphaned, E::Emptied, P::Ended),
        // Nothing leads back from Closing: a contender may already wait for the drain.
        (P::Closing, E::Stopped, P::Closing),
        (P::Closing, E::Emptied, P::Ended),
    ]
};

impl HolderPhase {
    /// The phase after `event`; none where the event cannot happen in this phase.
    pub(super) fn next(self, event: HolderEvent) -> Option<Self> {
        next(HOLDER, self, event)
    }
}

impl OpenPhase {
    /// The phase after `event`; none where the event cannot happen in this phase.
    pub(super) fn next(self, event: OpenEvent) -> Option<Self> {
        next(OPEN, self, event)
    }
}

fn next<P: Copy + PartialEq, E: Copy + PartialEq>(rows: &[Row<P, E>], phase: P, event: E) -> Option<P> {
    rows.iter().find(|(from, on, _)| *from == phase && *on == event).map(|(_, _, to)| *to)
}

#[cfg(test)]
mod tests {
    use core::fmt::Debug;

    use super::*;

    fn matrix<P: Copy + Debug, E: Copy + Debug>(
        phases: [P; 4],
        events: [E; 4],
        next: impl Fn(P, E) -> Option<P>,
    ) -> String {
        let mut text = String::new();
        for phase in phases {
            for event in events {
                let to = next(phase, event).map_or_else(|| "-".to_owned(), |to| format!("{to:?}"));
                text.push_str(&format!("{phase:?} {event:?} {to}\n"));
            }
        }
        text
    }

    #[test]
    fn every_holder_phase_meets_every_event() {
        use HolderEvent as E;
        use HolderPhase as P;
        let phases = [P::Live, P::Away, P::Draining, P::Gone];
        let events = [E::SessionAway, E::SessionBack, E::Stop, E::Idle];
        let expected = "\
Live SessionAway Away
Live SessionBack Live
Live Stop Draining
Live Idle Live
Away SessionAway Away
Away SessionBack Live
Away Stop Draining
Away Idle Away
Draining SessionAway Draining
Draining SessionBack Draining
Draining Stop Draining
Draining Idle Gone
Gone SessionAway -
Gone SessionBack -
Gone Stop -
Gone Idle -
";
        assert_eq!(matrix(phases, events, P::next), expected);
    }

    #[test]
    fn every_open_phase_meets_every_event() {
        use OpenEvent as E;
        use OpenPhase as P;
        let phases = [P::Held, P::Orphaned, P::Closing, P::Ended];
        let events = [E::Reached, E::Unreached, E::Stopped, E::Emptied];
        let expected = "\
Held Reached Held
Held Unreached Orphaned
Held Stopped Closing
Held Emptied Ended
Orphaned Reached Held
Orphaned Unreached Orphaned
Orphaned Stopped Closing
Orphaned Emptied Ended
Closing Reached -
Closing Unreached -
Closing Stopped Closing
Closing Emptied Ended
Ended Reached -
Ended Unreached -
Ended Stopped -
Ended Emptied -
";
        assert_eq!(matrix(phases, events, P::next), expected);
    }

    /// The matrix as a table of the documentation, below `head` and its rule.
    fn documented<P: Copy + Debug, E: Copy + Debug>(
        head: &str,
        phases: [P; 4],
        events: [E; 4],
        next: impl Fn(P, E) -> Option<P>,
    ) -> String {
        let word = |phase: P| format!("{phase:?}").to_lowercase();
        let row = |phase: P| {
            let to = events.map(|event| next(phase, event).map_or_else(|| "-".to_owned(), word));
            format!("| {} | {} |\n", word(phase), to.join(" | "))
        };
        format!("{head}\n| --- | --- | --- | --- | --- |\n{}\n", phases.map(row).concat())
    }

    #[test]
    fn the_documented_tables_are_the_declared_ones() {
        let (document, _) = include_str!("../../docs/protocol.md").split_once("\n## Grants\n").unwrap();
        let (_, chapter) = document.split_once("\n## Opens\n").unwrap();
        let holders = documented(
            "| holder | its session is away | its session is back | it is stopped | nothing of it executes |",
            [HolderPhase::Live, HolderPhase::Away, HolderPhase::Draining, HolderPhase::Gone],
            [HolderEvent::SessionAway, HolderEvent::SessionBack, HolderEvent::Stop, HolderEvent::Idle],
            HolderPhase::next,
        );
        let opens = documented(
            "| open | a holder is live | none is live, one is away | all that are left drain | none is left |",
            [OpenPhase::Held, OpenPhase::Orphaned, OpenPhase::Closing, OpenPhase::Ended],
            [OpenEvent::Reached, OpenEvent::Unreached, OpenEvent::Stopped, OpenEvent::Emptied],
            OpenPhase::next,
        );
        for table in [holders, opens] {
            assert!(chapter.contains(&table), "docs/protocol.md, Opens, has not this table:\n{table}");
        }
    }

    #[test]
    fn no_row_stands_twice() {
        for (at, (from, on, _)) in HOLDER.iter().enumerate() {
            assert!(!HOLDER[..at].iter().any(|(f, o, _)| f == from && o == on), "{from:?} {on:?}");
        }
        for (at, (from, on, _)) in OPEN.iter().enumerate() {
            assert!(!OPEN[..at].iter().any(|(f, o, _)| f == from && o == on), "{from:?} {on:?}");
        }
    }
}
