//! What a process has used, by its own folder in `/proc`.

use super::Outcome;

/// Clock ticks of `/proc` in a second: 100 on every Linux.
const TICKS: f64 = 100.0;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Seconds in its own code.
    pub(crate) user: f64,
    /// Seconds in the kernel.
    pub(crate) system: f64,
    /// Resident memory.
    pub(crate) rss_mib: f64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Outcome<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name stands in parentheses and may hold anything; proc(5) numbers the field behind it 3.
        let (_, fields) = text.rsplit_once(") ").ok_or("a strange stat file")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let field = |number: usize| -> Outcome<f64> { Ok(fields[number - 3].parse()?) };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let rss_kib: f64 = rss.ok_or("no VmRSS")?.parse()?;
        Ok(Self { user: field(14)? / TICKS, system: field(15)? / TICKS, rss_mib: rss_kib / 1024.0 })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            user: self.user - before.user,
            system: self.system - before.system,
            rss_mib: self.rss_mib - before.rss_mib,
        }
    }
}
