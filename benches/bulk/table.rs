//! The figures of all pairs as Markdown tables.

use bowline::model::{Protection, Suite};

use super::{Pass, Run};

const MIB: f64 = (1 << 20) as f64;
const GIB: f64 = (1 << 30) as f64;
const MICROSECONDS: f64 = 1e6;

/// A pass through bowline, the pass of its floor beside it, and the cipher's own cost at that time, in processor
/// seconds per GiB.
pub(crate) struct Pair {
    pub(crate) floor: Run,
    pub(crate) line: Run,
    pub(crate) cipher: f64,
}

/// What is measured in one row.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) protection: Protection,
    pub(crate) suite: Suite,
    pub(crate) pass: Pass,
}

/// A row and its figures.
pub(crate) struct Cell {
    pub(crate) row: Row,
    pub(crate) pairs: Vec<Pair>,
}

impl Row {
    /// What the row is called.
    pub(crate) fn name(&self) -> String {
        let pass = match self.pass {
            Pass::Read(_) => "read".to_owned(),
            Pass::Write(_) => "write".to_owned(),
            Pass::Random { depth, .. } => format!("4 KiB reads at depth {depth}"),
        };
        match self.protection {
            // The suite protects heads and bodies only.
            Protection::Clear => format!("clear {pass}"),
            protection => format!("{protection} {pass}, {}", self.suite),
        }
    }

    /// How many MiB a pass moves, or how many reads it makes.
    fn amount(&self) -> f64 {
        match self.pass {
            Pass::Read(bytes) | Pass::Write(bytes) => bytes as f64 / MIB,
            Pass::Random { reads, .. } => reads as f64,
        }
    }

    /// From processor seconds of a pass to what they are given in: seconds per GiB, or microseconds per read.
    fn share(&self) -> f64 {
        match self.pass {
            Pass::Read(bytes) | Pass::Write(bytes) => GIB / bytes as f64,
            Pass::Random { reads, .. } => MICROSECONDS / reads as f64,
        }
    }

    fn is_random(&self) -> bool {
        matches!(self.pass, Pass::Random { .. })
    }
}

impl Cell {
    pub(crate) fn new(row: Row) -> Self {
        Self { row, pairs: Vec::new() }
    }

    fn spread(&self, value: impl Fn(&Pair) -> f64, digits: usize) -> String {
        let values = self.sorted(value);
        let (least, most) = (values[0], values[values.len() - 1]);
        format!("{:.digits$} [{least:.digits$}-{most:.digits$}]", median(&values))
    }

    fn middle(&self, value: impl Fn(&Pair) -> f64) -> f64 {
        median(&self.sorted(value))
    }

    fn sorted(&self, value: impl Fn(&Pair) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> = self.pairs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    }
}

/// Medians of all pairs with least and most; a ratio is the median of the pairs' ratios.
pub(crate) fn print(cells: &[Cell]) {
    let (random, bulk): (Vec<&Cell>, Vec<&Cell>) = cells.iter().partition(|cell| cell.row.is_random());
    if !bulk.is_empty() {
        print_ratios(&bulk, ("MiB/s", "CPU-s/GiB", 2));
        print_shell(&bulk);
    }
    if !random.is_empty() {
        print_ratios(&random, ("reads/s", "CPU-µs per read", 1));
    }
}

fn print_ratios(cells: &[&Cell], (rate, cpu, digits): (&str, &str, usize)) {
    println!("| | {rate} | floor, {rate} | of the floor | {cpu} | floor, {cpu} | times the floor |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for cell in cells {
        let (amount, share) = (cell.row.amount(), cell.row.share());
        println!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            cell.row.name(),
            cell.spread(|pair| amount / pair.line.seconds, 0),
            cell.spread(|pair| amount / pair.floor.seconds, 0),
            cell.spread(|pair| pair.floor.seconds / pair.line.seconds, 2),
            cell.spread(|pair| pair.line.cpu * share, digits),
            cell.spread(|pair| pair.floor.cpu * share, digits),
            cell.spread(|pair| pair.line.cpu / pair.floor.cpu, 2),
        );
    }
    println!();
}

fn print_shell(cells: &[&Cell]) {
    println!(
        "CPU-seconds per GiB of both ends, and where they go: what neither the floor nor the cipher explains"
    );
    println!("is the shell.\n");
    println!(
        "| | all | client | floor | cipher, both ends | shell | shell / cipher | page faults | floor's page faults |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for cell in cells {
        let share = cell.row.share();
        let shell = |pair: &Pair| (pair.line.cpu - pair.floor.cpu) * share - pair.cipher;
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {:.2} | {:.0} | {:.0} |",
            cell.row.name(),
            cell.middle(|pair| pair.line.cpu * share),
            cell.middle(|pair| pair.line.cpu_of_client * share),
            cell.middle(|pair| pair.floor.cpu * share),
            cell.middle(|pair| pair.cipher),
            cell.spread(shell, 2),
            cell.middle(|pair| shell(pair) / pair.cipher),
            cell.middle(|pair| pair.line.faults * share),
            cell.middle(|pair| pair.floor.faults * share),
        );
    }
    println!();
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}
