//! The figures of all pairs as Markdown tables.

use bowline::model::{Protection, Suite};

use super::{Direction, Run};

/// A pass through bowline, the pass of its floor beside it, and the cipher's own cost at that time.
pub(crate) struct Pair {
    pub(crate) floor: Run,
    pub(crate) line: Run,
    pub(crate) cipher: f64,
}

/// What is measured in one row.
pub(crate) struct Cell {
    pub(crate) protection: Protection,
    pub(crate) suite: Suite,
    pub(crate) direction: Direction,
    pub(crate) pairs: Vec<Pair>,
}

impl Cell {
    pub(crate) fn new(protection: Protection, suite: Suite, direction: Direction) -> Self {
        Self { protection, suite, direction, pairs: Vec::new() }
    }

    /// What the row is called.
    pub(crate) fn name(&self) -> String {
        let direction = if self.direction == Direction::Read { "read" } else { "write" };
        match self.protection {
            // The suite protects heads and bodies only.
            Protection::Clear => format!("clear {direction}"),
            protection => format!("{protection} {direction}, {}", self.suite),
        }
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
    println!("| | MiB/s | floor, MiB/s | of the floor | CPU-s/GiB | floor, CPU-s/GiB | times the floor |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for cell in cells {
        println!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            cell.name(),
            cell.spread(|pair| pair.line.rate, 0),
            cell.spread(|pair| pair.floor.rate, 0),
            cell.spread(|pair| pair.line.rate / pair.floor.rate, 2),
            cell.spread(|pair| pair.line.cpu, 2),
            cell.spread(|pair| pair.floor.cpu, 2),
            cell.spread(|pair| pair.line.cpu / pair.floor.cpu, 2),
        );
    }
    println!(
        "\nCPU-seconds per GiB of both ends, and where they go: what neither the floor nor the cipher explains"
    );
    println!("is the shell.\n");
    println!(
        "| | all | client | floor | cipher, both ends | shell | shell / cipher | page faults | floor's page faults |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for cell in cells {
        let shell = |pair: &Pair| pair.line.cpu - pair.floor.cpu - pair.cipher;
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {:.2} | {:.0} | {:.0} |",
            cell.name(),
            cell.middle(|pair| pair.line.cpu),
            cell.middle(|pair| pair.line.cpu_of_client),
            cell.middle(|pair| pair.floor.cpu),
            cell.middle(|pair| pair.cipher),
            cell.spread(shell, 2),
            cell.middle(|pair| shell(pair) / pair.cipher),
            cell.middle(|pair| pair.line.faults),
            cell.middle(|pair| pair.floor.faults),
        );
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}
