//! What came of all rounds of one measurement.

/// The values of all rounds.
#[derive(Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The median, with least and most.
    pub(crate) fn row(&self, digits: usize) -> String {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle.saturating_sub(1)] + sorted[middle]) / 2.0
        };
        let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
        format!("{median:.digits$} [{least:.digits$}-{most:.digits$}]")
    }
}
