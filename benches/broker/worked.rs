//! Processor time of each process that takes part. Unlike time on the clock it is the same when others build beside it.

/// Ticks of the kernel, a hundred a second: the server, the guest program, this process, and its children that ended, which
/// are the clients.
#[derive(Default)]
pub(super) struct Worked {
    ticks: [u64; 4],
    answers: u64,
}

impl Worked {
    /// Since each began.
    pub(super) fn now([server, guest]: [u32; 2]) -> Self {
        let here = ticks("self");
        let ticks = [ticks(&server.to_string())[0], ticks(&guest.to_string())[0], here[0], here[1]];
        Self { ticks, answers: 0 }
    }

    /// One more answer, which began and ended at these.
    pub(super) fn add(&mut self, began: &Self, ended: &Self) {
        self.answers += 1;
        for (sum, (began, ended)) in self.ticks.iter_mut().zip(began.ticks.iter().zip(&ended.ticks)) {
            *sum += ended - began;
        }
    }

    /// All of it.
    pub(super) fn sum(&self) -> u64 {
        self.ticks.iter().sum()
    }

    /// One row of a table: milliseconds for one answer.
    pub(super) fn row(&self, name: &str) {
        let all = self.ticks.iter().copied().chain([self.sum()]);
        let cells = all.map(|ticks| format!(" {:>8} |", ticks * 10 / self.answers.max(1)));
        println!("| {name:<44} |{}", cells.collect::<String>());
    }

    pub(super) fn head() {
        println!(
            "| {:<44} | {:>8} | {:>8} | {:>8} | {:>8} | {:>8} |",
            "ms of processor time", "server", "guest", "broker's", "client", "all"
        );
        println!("| {} |{}", "-".repeat(44), " -------: |".repeat(5));
    }
}

/// Of a process, and of its children that ended.
fn ticks(process: &str) -> [u64; 2] {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name before it may hold spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace().skip(11);
    let times: Vec<u64> = fields.take(4).filter_map(|field| field.parse().ok()).collect();
    [times.iter().take(2).sum(), times.iter().skip(2).sum()]
}
