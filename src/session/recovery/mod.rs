//! What became of changes of the file system that were under way when a server ended: decided from evidence, once, before
//! the next server serves anybody. protocol.md: What became of a request.
//!
//! A record of a change is stored before the change is made. What came of it is stored with some later commit, and always
//! before the next change that is recorded begins. So a record without an outcome is of a change that was under way at
//! the very end, and the file system tells what became of it:
//!
//! ```text
//!   as it was before ─────────────────────▶ not executed: it may be asked for again
//!   as it would be behind, by the file ───▶ executed: it is answered
//!   anything else ────────────────────────▶ unknown: that is told, and nothing is tried
//! ```
//!
//! Nobody but local programs can have interfered: the server that made the records had its exports to itself, and the next
//! one decides before it lets anybody in. Two records of one name that have no outcome are *contested*: each of them may
//! have hidden the other, and only the very file in its new place counts then.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::model::{
    Evidence, ExportName, ExportPath, FileIdentity, IntendedChange, IntendedName, IntentOutcome, NameState,
    RenameHow, StoredIntent,
};

/// Decides what became of recorded changes, and returns the records that say something else now. Evidence is asked for
/// those that need it. With `is_same_boot` a recorded outcome stands; if the machine has stopped since, what was done may
/// be undone, and it stands only if it is seen.
pub fn recover(
    records: &[(u64, StoredIntent)],
    is_same_boot: bool,
    mut evidence: impl FnMut(&IntendedChange) -> Evidence,
) -> Vec<(u64, StoredIntent)> {
    let mut uses: HashMap<(&ExportName, &ExportPath), usize> = HashMap::new();
    for name in records
        .iter()
        .filter(|(_, intent)| intent.outcome.is_none())
        .flat_map(|(_, intent)| intent.change.names())
    {
        *uses.entry((&name.export, &name.path)).or_default() += 1;
    }
    let is_contested =
        |name: &IntendedName| uses.get(&(&name.export, &name.path)).is_some_and(|uses| *uses > 1);
    let mut changed = Vec::new();
    for (key, intent) in records {
        let outcome = match intent.outcome {
            None => {
                let is_contested = intent.change.names().into_iter().any(is_contested);
                judge(&intent.change, &evidence(&intent.change), is_contested)
            }
            Some(done @ (IntentOutcome::Executed | IntentOutcome::Appended { .. })) if !is_same_boot => {
                let seen = judge(&intent.change, &evidence(&intent.change), false);
                if seen == done { done } else { IntentOutcome::Unknown }
            }
            Some(outcome) => outcome,
        };
        if intent.outcome != Some(outcome) {
            changed.push((*key, StoredIntent { outcome: Some(outcome), ..intent.clone() }));
        }
    }
    changed
}

/// What became of a change, from how its places look now.
#[must_use]
pub fn judge(change: &IntendedChange, evidence: &Evidence, is_contested: bool) -> IntentOutcome {
    let names = change.names();
    let is_of_bytes = matches!(change, IntendedChange::SetLength { .. } | IntendedChange::Append { .. });
    let is_in_place = |(name, now): (&&IntendedName, &NameState)| {
        is_of_bytes || (now.directory.is_some() && name.before.directory == now.directory)
    };
    if names.len() != evidence.names.len() || !names.iter().zip(&evidence.names).all(is_in_place) {
        // Another file system stands there, or the directory was moved.
        return IntentOutcome::Unknown;
    }
    let now = |at: usize| evidence.names.get(at).copied().unwrap_or_default();
    let verdict = match change {
        // Something was in its way, and it was or would have been refused.
        IntendedChange::MakeDirectory(at)
        | IntendedChange::Symlink(at, _)
        | IntendedChange::HardLink(at, _)
            if at.before.file.is_some() =>
        {
            if now(0).file == at.before.file {
                Verdict::NotExecuted
            } else {
                Verdict::Unknown
            }
        }
        IntendedChange::Make { file, .. } => judge_made(*file, now(0)),
        // Nothing tells who has made it.
        IntendedChange::MakeDirectory(_) => if_absent(now(0), Verdict::Unknown),
        IntendedChange::Symlink(_, target) if evidence.target.as_ref() == Some(target) => Verdict::Likely,
        IntendedChange::Symlink(..) => if_absent(now(0), Verdict::Unknown),
        IntendedChange::HardLink(_, file) => judge_made(Some(*file), now(0)),
        IntendedChange::Remove(at) if now(0).file == at.before.file => Verdict::NotExecuted,
        IntendedChange::Remove(_) => Verdict::Likely,
        IntendedChange::Rename { from, to, how } => judge_renamed((from, to), *how, [now(0), now(1)]),
        IntendedChange::SetLength { at, from, to } => judge_length(at, (*from, *to), now(0), evidence.len),
        IntendedChange::Append { at, offset, len, sum } => {
            return judge_appended(at, (*offset, *len, sum), now(0), evidence, is_contested);
        }
    };
    match verdict {
        Verdict::Certain => IntentOutcome::Executed,
        Verdict::Likely if !is_contested => IntentOutcome::Executed,
        Verdict::NotExecuted if !is_contested => IntentOutcome::NotExecuted,
        Verdict::Likely | Verdict::NotExecuted | Verdict::Unknown => IntentOutcome::Unknown,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The very file is where it was to be.
    Certain,
    /// It looks as it would behind; another change of the same name could have made it so.
    Likely,
    /// It looks as it did before; another change of the same name could have made it so.
    NotExecuted,
    Unknown,
}

fn if_absent(now: NameState, otherwise: Verdict) -> Verdict {
    if now.file.is_none() { Verdict::NotExecuted } else { otherwise }
}

fn judge_made(file: Option<FileIdentity>, now: NameState) -> Verdict {
    let is_it = file.is_some() && now.file == file;
    if is_it { Verdict::Certain } else { if_absent(now, Verdict::Unknown) }
}

fn judge_renamed((from, to): (&IntendedName, &IntendedName), how: RenameHow, now: [NameState; 2]) -> Verdict {
    let (first, second) = (from.before.file, to.before.file);
    let behind = match how {
        RenameHow::Exchange => [second, first],
        RenameHow::Replace | RenameHow::NoReplace => [None, first],
    };
    let now = now.map(|name| name.file);
    if first.is_none() {
        Verdict::Unknown
    } else if first == second {
        // Two names of one file: it changes nothing.
        if now == [first, second] { Verdict::Certain } else { Verdict::Unknown }
    } else if now == behind {
        Verdict::Certain
    } else if now == [first, second] {
        Verdict::NotExecuted
    } else {
        Verdict::Unknown
    }
}

fn judge_length(at: &IntendedName, (from, to): (u64, u64), now: NameState, len: Option<u64>) -> Verdict {
    let Some(len) = len.filter(|_| now.file.is_some() && now.file == at.before.file) else {
        return Verdict::Unknown;
    };
    if len == to {
        Verdict::Likely
    } else if len == from {
        Verdict::NotExecuted
    } else {
        Verdict::Unknown
    }
}

fn judge_appended(
    at: &IntendedName,
    (offset, len, sum): (u64, u32, &[u8; 32]),
    now: NameState,
    evidence: &Evidence,
    is_contested: bool,
) -> IntentOutcome {
    let Some(length) = evidence.len.filter(|_| now.file.is_some() && now.file == at.before.file) else {
        return IntentOutcome::Unknown;
    };
    if is_contested {
        // Somebody may have cut it, and appended the same.
        IntentOutcome::Unknown
    } else if length == offset {
        IntentOutcome::NotExecuted
    } else if length >= offset.saturating_add(u64::from(len)) && evidence.sum.as_ref() == Some(sum) {
        IntentOutcome::Appended { offset, written: len }
    } else {
        IntentOutcome::Unknown
    }
}
