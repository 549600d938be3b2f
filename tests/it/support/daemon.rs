//! The daemon as its service manager sees it: a process, its log, signals.

use std::{
    fs,
    process::ExitStatus,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use super::{Bench, PATIENCE};

/// A running process of the binary. It ends with the test.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Daemon {
    /// `run`, once its log says that it is running.
    pub async fn start(bench: &Bench) -> Self {
        let daemon = Self::spawn(bench.command(&["-vv", "run"]));
        daemon.wait_for_log("running").await;
        daemon
    }

    /// Any command, in the background.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let readers = vec![collect(child.stdout.take().unwrap(), &log), collect(child.stderr.take().unwrap(), &log)];
        Self { child, log, readers }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Whether the process has ended, reaped or not.
    pub fn has_ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        stat.is_ok_and(|stat| stat.rsplit(") ").next().unwrap().starts_with('Z'))
    }

    /// The URL of the page, without a trailing slash.
    pub fn url(&self) -> String {
        let line = self.log().into_iter().find(|line| line.contains("\"message\":\"running\"")).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        line["url"].as_str().unwrap().trim_end_matches('/').to_owned()
    }

    /// All lines so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The alarms in its log, in order.
    pub fn alarms(&self) -> Vec<String> {
        super::alarms(self.log().iter().map(String::as_str))
    }

    /// Waits until a line contains this.
    pub async fn wait_for_log(&self, text: &str) {
        let found = wait_until(async || self.log().iter().any(|line| line.contains(text))).await;
        assert!(found, "no `{text}` in\n{}", self.log().join("\n"));
    }

    /// Sends it. After STOP no thread of the process runs: the kernel stops each on its own, after `kill` has returned.
    pub async fn signal(&self, signal: &str) {
        let line = format!("kill -{signal} {}", self.pid());
        assert!(Command::new("sh").arg("-c").arg(line).status().await.unwrap().success());
        if signal == "STOP" {
            assert!(wait_until(async || self.stands_still()).await);
        }
    }

    /// Whether each of its threads is stopped or has ended.
    fn stands_still(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok()).all(|stat| {
            // The state follows the name, which is in parentheses.
            stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(['T', 'Z', 'X']))
        })
    }

    /// Waits for its end; its log is kept for the oracle.
    pub async fn end(mut self, bench: &Bench) -> ExitStatus {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        for reader in self.readers.drain(..) {
            reader.await.unwrap();
        }
        bench.note_printed(&self.log().join("\n"));
        status
    }

    /// SIGTERM, and its end.
    pub async fn stop(self, bench: &Bench) -> ExitStatus {
        self.signal("TERM").await;
        self.end(bench).await
    }

    /// SIGKILL, and its end.
    pub async fn kill(mut self, bench: &Bench) -> ExitStatus {
        // It may have ended already.
        let _ = self.child.start_kill();
        self.end(bench).await
    }
}

fn collect(from: impl AsyncRead + Unpin + Send + 'static, log: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    crate::support::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            log.lock().unwrap().push(line);
        }
    })
}

/// Polls until the condition holds; `false` after [`PATIENCE`].
pub async fn wait_until(is_so: impl AsyncFn() -> bool) -> bool {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.is_ok()
}
