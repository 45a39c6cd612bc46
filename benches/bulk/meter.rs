//! What a pass costs: time, processor time of both ends, and page faults; and on which machine.

use std::time::Instant;

use super::Outcome;

/// Clock ticks of `/proc` in a second: 100 on every Linux.
const TICKS: f64 = 100.0;

/// What a pass has cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) seconds: f64,
    /// Processor seconds, client and server together.
    pub(crate) cpu: f64,
    /// The client's part of it.
    pub(crate) cpu_of_client: f64,
    /// Minor page faults, client and server together.
    pub(crate) faults: f64,
}

/// What a process has used since it began.
#[derive(Clone, Copy)]
struct Usage {
    cpu: f64,
    faults: f64,
}

/// Runs a pass between this process and the process `server`.
#[expect(clippy::disallowed_methods, reason = "a figure of real time, and no decision hangs on it")]
pub(crate) fn measure(server: u32, pass: impl FnOnce() -> Outcome<()>) -> Outcome<Run> {
    let before = (usage("self")?, usage(&server.to_string())?);
    let begin = Instant::now();
    pass()?;
    let seconds = begin.elapsed().as_secs_f64();
    let after = (usage("self")?, usage(&server.to_string())?);
    let (client, server) = (after.0.since(before.0), after.1.since(before.1));
    Ok(Run {
        seconds,
        cpu: client.cpu + server.cpu,
        cpu_of_client: client.cpu,
        faults: client.faults + server.faults,
    })
}

fn usage(process: &str) -> Outcome<Usage> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name stands in parentheses and may hold anything; proc(5) numbers the field behind it 3.
    let (_, fields) = text.rsplit_once(") ").ok_or("a strange stat file")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let field = |number: usize| -> Outcome<f64> { Ok(fields[number - 3].parse()?) };
    Ok(Usage { cpu: (field(14)? + field(15)?) / TICKS, faults: field(10)? })
}

impl Usage {
    fn since(self, before: Self) -> Self {
        Self { cpu: self.cpu - before.cpu, faults: self.faults - before.faults }
    }
}

/// The machine in one line.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    let kernel = read("/proc/sys/kernel/osrelease");
    let congestion = read("/proc/sys/net/ipv4/tcp_congestion_control");
    format!("{model}, {cores} cores, Linux {}, TCP {}", kernel.trim(), congestion.trim())
}
