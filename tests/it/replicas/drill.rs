//! The drill: five replicas share two thousand partitions while they are killed and stopped, the server is restarted, and
//! connections are cut at a COMMIT.
//!
//! The random choices follow from a seed, which is printed. `MOESYNC_DRILL_SEED` sets it, and `MOESYNC_DRILL_PARTITIONS` the
//! number of partitions. To run the drill many times:
//!
//! ```sh
//! for i in $(seq 20); do cargo test --locked --test it -- --nocapture --test-threads=1 replicas::drill || break; done
//! ```
//!
//! Nothing waits for the 30 seconds after which a replica counts as dead: the row of a replica that is dead or stopped is made old.

mod findings;
mod proxy;

use std::{fs, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus, seq::IndexedRandom as _};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::time::{Instant, sleep};

use self::proxy::Proxy;
use super::on_server;
use crate::support::{
    APP, Bench, Daemon, PATIENCE, Receiver, Series, TestClock,
    postgres::{Route, Server},
    wait_until, watch,
};

on_each_route! {
    two_thousand_partitions_are_stored_once_despite_kills_stops_and_cuts,
}

const REPLICAS: usize = 5;
const KILLS: usize = 6;
const STOPS: usize = 3;
const RESTARTS: usize = 2;
/// Connections that are cut, at most.
const CUTS: usize = 20;

/// Reports of statistics, and the partitions of each, which take several requests.
const STATISTICS: usize = 2;
const DAYS_OF_STATISTICS: u32 = 10;

/// Reports whose archives are never whole during the drill.
const BROKEN: usize = 3;

/// What the drill does once a number of partitions is stored.
#[derive(Debug, Clone, Copy)]
enum Disturbance {
    Kill,
    Stop,
    Restart,
}

struct Drill {
    random: Xoshiro256PlusPlus,
    bench: Bench,
    server: Server,
    /// The ledger, past the proxy.
    url: String,
    connection: Option<PgConnection>,
    proxy: Proxy,
    receiver: Receiver,
    replicas: Vec<Replica>,
    /// What was done and when: printed if the test fails.
    diary: Vec<String>,
    seed: u64,
    began: Instant,
}

struct Replica {
    daemon: Daemon,
    is_stopped: bool,
}

/// Those that can be stored during the drill.
fn partitions() -> usize {
    std::env::var("MOESYNC_DRILL_PARTITIONS").map_or(2000, |count| count.parse().unwrap())
}

fn series() -> Vec<Series> {
    let campaigns = (0..20).map(|number| Series::campaign(&format!("Report {number}"), 6));
    let days = (partitions() - 20 * 6 - STATISTICS * DAYS_OF_STATISTICS as usize) / 2;
    let dumps =
        (0..2).map(|number| Series { id: format!("dump-{number}"), ..Series::dump(u32::try_from(days).unwrap()) });
    let broken = (0..BROKEN).map(|number| Series::campaign(&format!("Broken {number}"), 1));
    campaigns.chain(dumps).chain(broken).collect()
}

/// Their tables, in a workspace of their own: while they wait for their turns they take none of the slots of archives.
fn statistics(bench: &Bench) -> String {
    let key = bench.path("secret-key");
    let workspace = format!(
        "\n[[workspaces]]\nname = \"json\"\napp_id = \"{APP}\"\nbase_url = \"{}\"\ntimezone = \"UTC\"\nsecret_key_file = \"{}\"\n",
        bench.vendor.url(),
        key.display()
    );
    let start = bench.newest.checked_sub(jiff::Span::new().days(DAYS_OF_STATISTICS - 1)).unwrap();
    let report = |number| {
        format!(
            "\n[[reports]]\nworkspace = \"json\"\ndestination = \"disk\"\nsource = \"campaign_stats\"\nid = \"stats-{number}\"\n\
             metric_type = \"TOTAL\"\nattribution_type = \"CLICK_THROUGH\"\nrefresh_days = 0\n\
             schedule = {{ every = \"day\", at = \"{}\" }}\nstart = \"{start}\"\n",
            bench.generated_at_time()
        )
    };
    workspace + &(0..STATISTICS).map(report).collect::<String>()
}

async fn two_thousand_partitions_are_stored_once_despite_kills_stops_and_cuts(route: Route) {
    let mut drill = Drill::new(route).await;
    for (stored, disturbance) in drill.plan() {
        drill.until_stored(stored).await;
        drill.disturb(disturbance).await;
    }
    drill.until_stored(partitions()).await;
    drill.end().await;
    drill.judge().await;
}

impl Drill {
    async fn new(route: Route) -> Self {
        let seed = std::env::var("MOESYNC_DRILL_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = seed.unwrap_or_else(|| TestClock::machine().read().as_nanosecond() as u64);
        println!("MOESYNC_DRILL_SEED={seed} {route:?}");
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let server = Server::start().await;
        let through = server.database(route).await;
        let (address, name) = through.rsplit_once('/').unwrap();
        let (host, port) = address.rsplit_once(':').unwrap();
        // A partition takes some ten of them.
        let commits = u32::try_from(partitions() * 10 / CUTS).unwrap();
        let proxy = Proxy::start(port.parse().unwrap(), random.random(), commits, CUTS).await;
        let bench = Bench::new(&series()).await;
        let receiver = Receiver::start().await;
        // The proxy reads what the client sends.
        let through = format!("{host}:{}/{name}?sslmode=disable", proxy.port);
        let alarms = receiver.webhook() + "events = [\"alarms\"]\n";
        bench.write_config(&(on_server(&bench, &through) + &statistics(&bench) + &alarms));
        bench.fault("html,path=Broken_");
        // A download takes a fifth of a second.
        bench.fault("slow=20000");
        let mut drill = Self {
            random,
            url: format!("{}/{name}", server.url()),
            connection: None,
            bench,
            server,
            proxy,
            receiver,
            replicas: Vec::new(),
            diary: Vec::new(),
            seed,
            began: Instant::now(),
        };
        for _ in 0..REPLICAS {
            let replica = drill.spawn();
            drill.replicas.push(replica);
        }
        drill
    }

    /// The disturbances, each with the number of stored partitions at which it happens.
    fn plan(&mut self) -> Vec<(usize, Disturbance)> {
        let disturbances = [(Disturbance::Kill, KILLS), (Disturbance::Stop, STOPS), (Disturbance::Restart, RESTARTS)];
        let disturbances = disturbances.into_iter().flat_map(|(disturbance, times)| vec![disturbance; times]);
        let last = partitions() * 95 / 100;
        let mut plan: Vec<_> =
            disturbances.map(|disturbance| (self.random.random_range(1..last), disturbance)).collect();
        plan.sort_by_key(|(stored, _)| *stored);
        plan
    }

    fn spawn(&self) -> Replica {
        let mut command = self.bench.command(&["run"]);
        command.env("LD_PRELOAD", watch::library()).env("WATCH_LOG", self.bench.path("calls"));
        Replica { daemon: Daemon::spawn(command), is_stopped: false }
    }

    fn note(&mut self, what: &str) {
        self.diary.push(format!("{:7.1} s  {what}", self.began.elapsed().as_secs_f64()));
    }

    /// The number that a query returns, past the proxy; 0 before the replicas have created the tables.
    async fn number(&mut self, query: &str) -> i64 {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => PgConnection::connect(&self.url).await.unwrap(),
        };
        let connection = self.connection.insert(connection);
        let answer = sqlx::raw_sql(AssertSqlSafe(query.to_owned())).fetch_optional(connection).await;
        match answer {
            Ok(row) => row.map_or(0, |row| row.get(0)),
            Err(error) => {
                let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
                assert_eq!(code.as_deref(), Some("42P01"), "{error}");
                0
            }
        }
    }

    /// Waits until this many partitions are stored.
    async fn until_stored(&mut self, count: usize) {
        let (mut stored, mut last) = (0, Instant::now());
        loop {
            let now = self.number("SELECT count(*) FROM partitions WHERE settled = 'stored'").await;
            if now >= i64::try_from(count).unwrap() {
                return;
            }
            if now > stored {
                (stored, last) = (now, Instant::now());
            }
            assert!(last.elapsed() < PATIENCE, "{stored} of {count} partitions are stored");
            self.supervise().await;
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Continues stopped replicas once others have their claims, and starts those again that have ended.
    async fn supervise(&mut self) {
        for number in 0..self.replicas.len() {
            let Replica { daemon, is_stopped } = &self.replicas[number];
            let pid = daemon.pid();
            if *is_stopped {
                self.bury(pid).await;
                let claims = format!("SELECT count(*) FROM claims WHERE holder LIKE '%-{pid}-%'");
                if self.number(&claims).await == 0 {
                    self.resume(number).await;
                }
            } else if daemon.has_ended() {
                // As a service manager does. It ends only if it cannot reach the server when it starts.
                let log = daemon.log().join("\n");
                assert!(log.contains("the ledger postgres://") && !log.contains("\"running\""), "{log}");
                let started = self.spawn();
                let ended = std::mem::replace(&mut self.replicas[number], started);
                ended.daemon.end(&self.bench).await;
                self.note(&format!("process {pid} could not start; started again"));
            }
        }
    }

    async fn disturb(&mut self, disturbance: Disturbance) {
        let running: Vec<_> = (0..REPLICAS).filter(|number| !self.replicas[*number].is_stopped).collect();
        let number = running.choose(&mut self.random).copied().unwrap();
        let pid = self.replicas[number].daemon.pid();
        match disturbance {
            Disturbance::Kill => {
                let started = self.spawn();
                let killed = std::mem::replace(&mut self.replicas[number], started);
                killed.daemon.kill(&self.bench).await;
                self.bury(pid).await;
                self.note(&format!("killed process {pid}"));
            }
            Disturbance::Stop => {
                self.replicas[number].daemon.signal("STOP").await;
                self.replicas[number].is_stopped = true;
                self.note(&format!("stopped process {pid}"));
            }
            Disturbance::Restart => {
                self.connection = None;
                self.server.stop();
                self.note("stopped the server");
                self.server.start_again();
                self.note("started the server");
            }
        }
    }

    async fn resume(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        replica.daemon.signal("CONT").await;
        replica.is_stopped = false;
        let pid = replica.daemon.pid();
        self.note(&format!("process {pid} continues"));
    }

    /// Makes the row of a process old: half a minute later.
    async fn bury(&mut self, pid: u32) {
        self.number(&format!("UPDATE holders SET renewed_at = 0 WHERE name LIKE '%-{pid}-%'")).await;
    }

    /// Ends the replicas. The broken reports are repaired, and a pass stores what is left.
    async fn end(&mut self) {
        self.note("all healthy partitions are stored");
        let known =
            || self.reported().values().filter(|phases| phases.first().is_some_and(|phase| phase == "began")).count();
        assert!(wait_until(async || known() >= BROKEN).await, "{:?}", self.reported());
        self.proxy.stop_cutting();
        for number in 0..REPLICAS {
            if self.replicas[number].is_stopped {
                self.resume(number).await;
            }
        }
        for Replica { daemon, .. } in std::mem::take(&mut self.replicas) {
            let pid = daemon.pid();
            let status = daemon.stop(&self.bench).await;
            assert!(status.success(), "process {pid} ended with {status}");
        }
        self.bench.vendor.clear_faults();
        self.bench.sync(0).await;
    }
}

impl Drop for Drill {
    /// Keeps what explains a failure.
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.diary.join("\n"));
            let path = format!("{}/drill-{}.log", env!("CARGO_TARGET_TMPDIR"), self.seed);
            let logs = self.replicas.iter().map(|replica| replica.daemon.log().join("\n"));
            let logs: Vec<_> = self.bench.printed().into_iter().chain(logs).collect();
            if fs::write(&path, logs.join("\n\n")).is_ok() {
                println!("the logs of all processes are in {path}");
            }
        }
    }
}
