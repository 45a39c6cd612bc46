//! As whom the program serves: root's rights are given up before anything is opened.

use std::str::FromStr;

use rustix::process::{Gid, Uid, getegid, geteuid, getgid, getuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::failure::Failure;

/// A user and a group, by their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct User {
    uid: Uid,
    gid: Gid,
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        // The highest number means "as it is" to the kernel.
        let number = |text: &str| text.parse().ok().filter(|number| *number != u32::MAX);
        let wrong = || "write numbers, UID or UID:GID, as in 1000:100".to_owned();
        let (uid, gid) = (number(uid).ok_or_else(wrong)?, number(gid).ok_or_else(wrong)?);
        if uid == 0 {
            return Err("user 0 is root, whose rights are to be given up".to_owned());
        }
        Ok(Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) })
    }
}

/// Says that root's rights were kept.
pub(super) fn warn_of_root() {
    if geteuid().is_root() {
        tracing::warn!("serving as root: clients can do what root can; see --user");
    }
}

impl User {
    /// Becomes this user, with no further groups, for good. Called while the process has one thread.
    pub(super) fn become_it(self) -> Result<(), Failure> {
        let Self { uid, gid } = self;
        let context = format!("cannot serve as user {} of group {}", uid.as_raw(), gid.as_raw());
        let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
        if !threads.is_ok_and(|count| count == 1) {
            // Another thread would keep root's rights.
            return Err(Failure::new(format!("{context}: the process has more than one thread")));
        }
        // The groups first: without root's user no group can be given up.
        set_thread_groups(&[])
            .and_then(|()| set_thread_res_gid(gid, gid, gid))
            .and_then(|()| set_thread_res_uid(uid, uid, uid))
            .map_err(|errno| {
                Failure::of(&context, &std::io::Error::from(errno))
                    .try_this("start it as root, or as that user without --user")
            })?;
        if (getuid(), geteuid(), getgid(), getegid()) != (uid, uid, gid, gid) {
            return Err(Failure::new(format!("{context}: the kernel did not do it")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_parse_or_say_what_is_wrong() {
        let user = |uid, gid| User { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) };
        assert_eq!("1000:100".parse(), Ok(user(1000, 100)));
        assert_eq!("65534".parse(), Ok(user(65534, 65534)));
        for (bad, why) in [
            ("0", "is root"),
            ("0:1000", "is root"),
            ("", "numbers"),
            (":", "numbers"),
            ("1000:", "numbers"),
            (":100", "numbers"),
            ("nobody", "numbers"),
            ("-1", "numbers"),
            ("4294967295", "numbers"),
            ("1:2:3", "numbers"),
        ] {
            let error = bad.parse::<User>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
