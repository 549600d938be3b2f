//! What holds after a drill, and how many downloads it cost.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, ToSpan as _};
use moesync::config::SourceKind;

use super::{BROKEN, CUTS, DAYS_OF_STATISTICS, Drill, KILLS, REPLICAS, RESTARTS, STATISTICS, STOPS};
use crate::support::{
    oracle::{hash, manifest_key},
    postgres, watch,
};

/// Archives that a replica downloads or stores at a time: `concurrency_per_destination`.
const AT_A_TIME: usize = 8;

impl Drill {
    pub(super) async fn judge(&self) {
        self.every_row_has_its_object_and_every_object_its_row().await;
        self.no_object_was_overwritten();
        self.each_alarm_arrived_once().await;
        self.the_limits_of_the_vendor_were_kept();
        let wasted = self.few_downloads_were_wasted();
        let (before, after) = self.proxy.cuts();
        println!(
            "{} partitions in {:.0} s; {wasted} downloads were wasted; cut {before} times before and {after} times after COMMIT",
            self.keys().len(),
            self.began.elapsed().as_secs_f64(),
        );
        self.bench.check_stored_files().await;
        let (requests, stored_files) = (self.bench.requests(), self.bench.stored_files());
        self.bench.sync(0).await;
        assert_eq!(self.bench.requests(), requests, "a second pass made requests");
        assert!(self.bench.stored_files() == stored_files, "a second pass changed the destination");
        assert_eq!(self.bench.kept_in("_staging"), [""; 0], "leftovers");
    }

    /// The keys of all objects.
    fn keys(&self) -> BTreeSet<String> {
        let archives = self.bench.due().into_iter().map(|(series, date)| series.key(date));
        let days = (0..i64::from(DAYS_OF_STATISTICS)).map(|ago| self.bench.newest.checked_sub(ago.days()).unwrap());
        let statistics = days.flat_map(|date| {
            let day = date.strftime("%Y%m%d").to_string();
            (0..STATISTICS).map(move |number| format!("json/stats-{number}/date={date}/stats-{number}_{day}.ndjson.gz"))
        });
        archives.chain(statistics).collect()
    }

    async fn every_row_has_its_object_and_every_object_its_row(&self) {
        let keys = self.keys();
        let stored_files = self.bench.stored_files();
        let expected: BTreeSet<_> = keys.iter().flat_map(|key| [key.clone(), manifest_key(key)]).collect();
        let found: BTreeSet<_> = stored_files.keys().cloned().collect();
        assert_eq!(found.symmetric_difference(&expected).collect::<Vec<_>>(), [""; 0], "missing or surplus files");

        let rows = self.bench.run(&["status", "--all", "--json"]).await.expect(0).partitions();
        let rows: Vec<_> = rows.into_iter().filter(|row| row["state"] != "scheduled").collect();
        let mut unseen = keys.clone();
        for row in &rows {
            assert_eq!(row["state"], "stored", "{row}");
            let key = row["key"].as_str().unwrap();
            assert!(unseen.remove(key), "{key} has two rows, or none was expected");
            assert_eq!(
                (&row["sha256"], &row["size"]),
                (&hash(&stored_files[key]).into(), &stored_files[key].len().into())
            );
        }
        assert_eq!(unseen, BTreeSet::new(), "objects without a row");

        let once = "SELECT count(*) FROM (SELECT partition_id FROM attempts WHERE outcome = 'stored'
                    GROUP BY partition_id HAVING count(*) = 1) AS once";
        assert_eq!(postgres::number(&self.url, once).await, i64::try_from(keys.len()).unwrap(), "recorded twice");
        let claims = postgres::number(&self.url, "SELECT count(*) FROM claims").await;
        assert_eq!(claims, 0, "claims remain");
    }

    fn no_object_was_overwritten(&self) {
        let calls = watch::calls(&self.bench.path("calls"), self.bench.folder.path());
        let named = calls.iter().filter_map(|call| Some((call.to.as_deref()?.strip_prefix("reports/")?, &call.name)));
        let keys = self.keys();
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (key, call) in named.filter(|(key, _)| keys.contains(*key)) {
            assert_eq!(call, "link", "{key} was replaced");
            *names.entry(key).or_default() += 1;
        }
        // A process that is killed after a link has not logged it.
        assert!(names.len() > keys.len() / 2, "only {} objects got a name", names.len());
        let twice: Vec<_> = names.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "named twice: {twice:?}");
    }

    /// The phases of each alarm, in the order in which they arrived.
    pub(super) fn reported(&self) -> BTreeMap<String, Vec<String>> {
        let mut alarms: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in self.receiver.events() {
            let Some(phase) = event["type"].as_str().unwrap().strip_prefix("alarm.") else { continue };
            let data = &event["data"];
            let alarm = data["alarm"].as_str().unwrap();
            // Alarms of one kind that change together are one event.
            let reports = data["reports"].as_array().unwrap().iter();
            let mut subjects: Vec<_> = reports.map(|report| report["report"].as_str().unwrap()).collect();
            if subjects.is_empty() {
                subjects.push(data["destination"].as_str().unwrap_or_default());
            }
            for subject in subjects {
                alarms.entry(format!("{alarm} {subject}")).or_default().push(phase.to_owned());
            }
        }
        alarms
    }

    async fn each_alarm_arrived_once(&self) {
        let phases = ["began", "ended"].map(str::to_owned);
        let expected = (0..BROKEN).map(|number| (format!("corrupt broken-{number}"), phases.to_vec()));
        if self.reported() != expected.clone().collect() {
            for number in 0..BROKEN {
                let report = format!("broken-{number}");
                let newest = self.bench.newest.to_string();
                println!("{}", self.bench.run(&["explain", "--report", &report, "--date", &newest]).await.stdout);
            }
        }
        assert_eq!(self.reported(), expected.collect());
    }

    /// Those of MoEngage, and in ten seconds twice a sixth of what it allows in a minute: requests that waited for their turn
    /// in a process that stood still, or for the server, arrive late and together. A rate for each process is five times.
    fn the_limits_of_the_vendor_were_kept(&self) {
        let requests = self.bench.vendor.requests();
        let statistics: Vec<_> =
            requests.iter().filter(|request| request.api == Some(SourceKind::CampaignStats)).collect();
        assert!(statistics.iter().all(|request| request.status.is_some_and(|status| status.is_success())));
        for (window, most) in [(1, 10), (10, 2 * 100 / 6), (60, 100)] {
            let window = SignedDuration::from_secs(window);
            for (number, first) in statistics.iter().enumerate() {
                let within =
                    statistics[number..].iter().take_while(|request| request.at.duration_since(first.at) < window);
                let count = within.count();
                assert!(count <= most, "{count} requests within {window:#} from {}", first.at);
            }
        }
    }

    /// Returns the number of archives that were downloaded and not stored.
    fn few_downloads_were_wasted(&self) -> usize {
        let requests = self.bench.vendor.requests();
        let archives = requests.iter().filter(|request| request.api.is_some_and(SourceKind::is_archive));
        let wasted = archives.filter(|request| request.fault != Some("html")).count() - self.bench.due().len();
        // What was being downloaded or stored: by a replica that was killed or stopped, or whose connection was cut; and by all of them
        // while the server was restarted.
        let (before, after) = self.proxy.cuts();
        assert!(before + after <= CUTS);
        let most = (KILLS + STOPS) * AT_A_TIME + RESTARTS * REPLICAS * AT_A_TIME + before + after;
        assert!(wasted <= most, "{wasted} downloads were wasted");
        wasted
    }
}
