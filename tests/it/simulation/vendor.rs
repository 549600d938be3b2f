//! A vendor that publishes late, restates, and fails by the weather.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Cursor, Write as _},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use jiff::{SignedDuration, Timestamp, civil::Date};
use moesync::{
    config::{Report, SourceKind},
    moengage::{Outgoing, Sender},
    report::Partition,
    schedule, signature,
};
use secrecy::ExposeSecret as _;

use super::{
    chance::Chance,
    clock::SimulatedClock,
    trace::Trace,
    weather::{self, DAY, HOUR, MINUTE, VendorFault, Weather},
};

/// The key of every workspace.
pub const KEY: &str = "canary-key-of-the-simulation";

/// Most requests for one partition within [`RATE_WINDOW`]: six quick tries and a few slow ones, twice.
const MOST_REQUESTS: usize = 30;
const RATE_WINDOW: Duration = Duration::from_secs(600);

/// MoEngage keeps a campaign report for so long.
const RETENTION: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What the vendor has of one partition.
#[derive(Debug, Clone)]
pub struct Truth {
    pub partition: Partition,
    /// `None` if it is never published.
    pub published_at: Option<Timestamp>,
    /// From then on it has other content.
    pub restated_at: Option<Timestamp>,
    /// From then on it is gone.
    pub removed_at: Timestamp,
    /// The contents before and after it is restated.
    pub contents: [Bytes; 2],
}

impl Truth {
    fn of(chance: Chance, report: &Report, date: Date) -> Option<Self> {
        let partition = report.partition(schedule::on(&report.schedule, &report.timezone, date)?);
        let generated_at = partition.generated_at;
        let how = chance.of("published").unit();
        let span = |shortest, longest| chance.of("published after").span(shortest, longest);
        let published_at = match how {
            ..0.8 => Some(generated_at + span(MINUTE, 25 * MINUTE)),
            ..0.92 => Some(generated_at + span(HOUR / 2, DAY / 2)),
            ..0.97 => Some(generated_at + span(DAY / 2, 5 * DAY)),
            _ => None,
        };
        let is_restated = chance.of("restated").happens(0.08);
        let restated_at =
            published_at.map(|at| at + chance.of("restated after").span(MINUTE, 3 * DAY)).filter(|_| is_restated);
        let removed_at = match report.source.kind() {
            SourceKind::CampaignReport => generated_at + RETENTION,
            _ => Timestamp::MAX,
        };
        let contents = [0, 1].map(|version| archive(chance.of("content").nth(version), date));
        Some(Self { partition, published_at, restated_at, removed_at, contents })
    }

    /// What is published at `now`.
    pub fn content(&self, now: Timestamp) -> Option<&Bytes> {
        let is_there = self.published_at.is_some_and(|at| at <= now) && now < self.removed_at;
        let is_restated = self.restated_at.is_some_and(|at| at <= now);
        is_there.then(|| &self.contents[usize::from(is_restated)])
    }
}

/// A zip of one table.
fn archive(chance: Chance, date: Date) -> Bytes {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file(format!("Report_{date}.csv"), zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"campaign,sent\n").unwrap();
    for row in 0..4 + chance.below(16) {
        writeln!(zip, "{row},{}", chance.nth(row).below(100_000)).unwrap();
    }
    zip.finish().unwrap().into_inner().into()
}

/// The archive with a bit flipped, such that its table cannot be read: some bits mean nothing, as the code length of a symbol
/// that does not occur.
fn damaged(archive: &Bytes, chance: Chance) -> Bytes {
    let mut zip = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    let entry = zip.by_index_raw(0).unwrap();
    let (start, length) = (entry.data_start().unwrap(), entry.compressed_size());
    let flip = |chance: Chance| {
        let mut bytes = archive.to_vec();
        bytes[(start + chance.of("at").below(length)) as usize] ^= 1 << chance.of("bit").below(8);
        bytes
    };
    let is_damaged = |bytes: &Vec<u8>| {
        let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        io::copy(&mut zip.by_index(0).unwrap(), &mut io::sink()).is_err()
    };
    (0..100).map(|number| flip(chance.nth(number))).find(is_damaged).unwrap().into()
}

/// One request, as the vendor sees it.
#[derive(Debug, Clone)]
pub struct Received {
    pub at: Timestamp,
    pub workspace: String,
    pub report: String,
    pub date: Date,
    pub fault: Option<VendorFault>,
}

pub struct Vendor {
    clock: SimulatedClock,
    chance: Chance,
    weather: Arc<Weather>,
    reports: Vec<Arc<Report>>,
    trace: Trace,
    truths: Mutex<BTreeMap<(String, Date), Arc<Truth>>>,
    received: Mutex<Vec<Received>>,
    violations: Mutex<Vec<String>>,
}

impl Vendor {
    pub fn new(
        clock: SimulatedClock,
        chance: Chance,
        weather: Arc<Weather>,
        reports: Vec<Arc<Report>>,
        trace: Trace,
    ) -> Self {
        Self {
            clock,
            chance,
            weather,
            reports,
            trace,
            truths: Mutex::default(),
            received: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    /// What it has of the report's partition; `None` if none is scheduled on `date`.
    pub fn truth(&self, report: &Report, date: Date) -> Option<Arc<Truth>> {
        let key = (report.id.name().to_owned(), date);
        let known = self.truths.lock().unwrap().get(&key).cloned();
        known.or_else(|| {
            let chance = self.chance.of(report.id.name()).of(&date.to_string());
            let truth = Arc::new(Truth::of(chance, report, date)?);
            self.truths.lock().unwrap().insert(key, Arc::clone(&truth));
            Some(truth)
        })
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// What the daemon asked too often.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    /// Whether there were too many requests for a partition just now.
    fn is_flooded(&self, report: &Report, date: Date) -> bool {
        let since = self.clock.true_now() - RATE_WINDOW;
        let received = self.received.lock().unwrap();
        let recent = received.iter().rev().take_while(|request| request.at > since);
        let alike = recent.filter(|request| request.date == date && request.report == report.id.name()).count();
        if alike == MOST_REQUESTS {
            self.violations.lock().unwrap().push(format!("{} {date} is requested too often", report.id.name()));
        }
        alike >= MOST_REQUESTS
    }

    /// The report and date of a URL.
    fn asked(&self, request: &Outgoing<'_>) -> Option<(Arc<Report>, Date)> {
        let mut parts = request.url.path_segments()?.rev();
        let (file, app_id) = (parts.next()?, parts.next()?);
        let day = file.strip_suffix(".zip")?.rsplit('_').next()?;
        let date = Date::strptime("%Y%m%d", day).ok()?;
        let report =
            self.reports.iter().find(|report| report.workspace.app_id == app_id && report.file_name(date) == file)?;
        let signed = signature::sign(app_id, file, &KEY.into());
        let sent = match request.credentials.and_then(|headers| headers.get("signature")) {
            Some(header) => header.to_str().ok()?.to_owned(),
            None => request.url.query_pairs().find(|(name, _)| name == "Signature")?.1.into_owned(),
        };
        (sent == signed.expose_secret()).then(|| (Arc::clone(report), date))
    }

    async fn respond(&self, request: Outgoing<'_>) -> Result<reqwest::Response, String> {
        if request.url.host_str() == Some("storage.example") {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return Ok(response(403, self.clock.true_now(), &[], "expired".into()));
        }
        let Some((report, date)) = self.asked(&request) else {
            return Ok(response(401, self.clock.true_now(), &[], Body::from("bad signature")));
        };
        if self.is_flooded(&report, date) {
            // Without an answer the run ends in a bounded time.
            std::future::pending::<()>().await;
        }
        let truth = self.truth(&report, date);
        let number = self.received.lock().unwrap().len() as u64;
        let chance = self.chance.of(report.id.name()).of(&date.to_string()).of("request").nth(number);
        tokio::time::sleep(chance.of("latency").between(Duration::from_millis(20), Duration::from_secs(3))).await;
        let now = self.clock.true_now();
        let fault = weather::at(&self.weather.vendor[report.id.workspace()], now)
            .map(|window| window.what)
            .or_else(|| chance.of("whether").happens(0.02).then(|| sporadic(chance.of("fault"))));
        self.received.lock().unwrap().push(Received {
            at: now,
            workspace: report.id.workspace().to_owned(),
            report: report.id.name().to_owned(),
            date,
            fault,
        });
        let content = truth.as_ref().and_then(|truth| truth.content(now));
        self.trace
            .add(now, format!("{} {date} requested: {fault:?}, published: {}", report.id.name(), content.is_some()));
        match fault {
            Some(VendorFault::Unreachable) => return Err("could not connect: simulated".to_owned()),
            Some(VendorFault::Silent) => std::future::pending().await,
            _ => {}
        }
        Ok(answer(fault, content, now, chance))
    }
}

impl Sender for Vendor {
    fn send<'a>(&'a self, request: Outgoing<'a>) -> BoxFuture<'a, Result<reqwest::Response, String>> {
        Box::pin(self.respond(request))
    }
}

/// A fault of one answer.
fn sporadic(chance: Chance) -> VendorFault {
    match weather::vendor_fault(chance) {
        VendorFault::Limits(Some(_)) => VendorFault::Limits(Some(20)),
        fault => fault,
    }
}

fn answer(fault: Option<VendorFault>, content: Option<&Bytes>, now: Timestamp, chance: Chance) -> reqwest::Response {
    let date = match fault {
        Some(VendorFault::OddDate(by)) => now + by,
        _ => now,
    };
    let respond = |status, headers: &[(&'static str, String)], body| response(status, date, headers, body);
    match fault {
        Some(VendorFault::Refuses(status)) => return respond(status, &[], "refused".into()),
        Some(VendorFault::Denies(status)) => return respond(status, &[], "no such file".into()),
        Some(VendorFault::Limits(Some(seconds))) => {
            return respond(429, &[("retry-after", seconds.to_string())], "too many".into());
        }
        Some(VendorFault::Limits(None)) => return respond(429, &[], "too many".into()),
        Some(VendorFault::Fails(status)) => return respond(status, &[], "failed".into()),
        Some(VendorFault::Html) => return respond(200, &[], "<html>maintenance</html>".into()),
        Some(VendorFault::JsonError) => return respond(200, &[], r#"{"error": "internal"}"#.into()),
        Some(VendorFault::Empty) => return respond(200, &[], "".into()),
        _ => {}
    }
    let Some(content) = content else {
        return respond(chance.of("denial").pick(&[400, 404]), &[], "not published".into());
    };
    if fault == Some(VendorFault::ForbiddenElsewhere) {
        return respond(302, &[("location", "https://storage.example/x.zip?X-Signature=secret".to_owned())], "".into());
    }
    let cut = 1 + chance.of("cut").below(content.len() as u64 - 1) as usize;
    let whole = Some(content.len() as u64);
    let pause = chance.of("pause").between(Duration::from_millis(5), Duration::from_secs(4));
    let body = |content: Bytes, announced, end| Body {
        pieces: [content.slice(..cut), content.slice(cut..)].into(),
        pause,
        waiting: None,
        announced,
        end,
    };
    let part = |announced, end| Body { pieces: [content.slice(..cut)].into(), pause, waiting: None, announced, end };
    let sent = match fault {
        Some(VendorFault::Cut) => part(whole, End::Broken(io::ErrorKind::UnexpectedEof)),
        Some(VendorFault::Reset) => part(whole, End::Broken(io::ErrorKind::ConnectionReset)),
        Some(VendorFault::Short) => part(None, End::Proper),
        Some(VendorFault::Stalls) => part(whole, End::Never),
        Some(VendorFault::Flipped) => body(damaged(content, chance.of("flip")), whole, End::Proper),
        _ => body(content.clone(), whole, End::Proper),
    };
    respond(200, &[], sent)
}

fn response(status: u16, date: Timestamp, headers: &[(&'static str, String)], body: Body) -> reqwest::Response {
    let mut response =
        hyper::Response::builder().status(status).header("date", httpdate::fmt_http_date(SystemTime::from(date)));
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(reqwest::Body::wrap(body)).unwrap().into()
}

/// A body that may end wrongly.
struct Body {
    pieces: VecDeque<Bytes>,
    /// Before each piece but the first, and before the end.
    pause: Duration,
    waiting: Option<Pin<Box<tokio::time::Sleep>>>,
    announced: Option<u64>,
    end: End,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Proper,
    Broken(io::ErrorKind),
    Never,
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        let pieces = VecDeque::from_iter((!text.is_empty()).then(|| Bytes::from(text)));
        Self {
            pieces,
            pause: Duration::from_millis(1),
            waiting: None,
            announced: Some(text.len() as u64),
            end: End::Proper,
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(waiting) = &mut self.waiting {
            std::task::ready!(waiting.as_mut().poll(context));
        }
        self.waiting = Some(Box::pin(tokio::time::sleep(self.pause)));
        match (self.pieces.pop_front(), self.end) {
            (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            (None, End::Proper) => Poll::Ready(None),
            (None, End::Broken(kind)) => Poll::Ready(Some(Err(io::Error::new(kind, "simulated")))),
            (None, End::Never) => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
