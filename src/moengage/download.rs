//! An archive: the signed request, the judged answer, and its bytes as they arrive.
//!
//! This file owns what MoEngage's archive APIs have in common. It must not know the contents of an archive.

use bytes::Bytes;
use jiff::civil;
use reqwest::{StatusCode, header::CONTENT_TYPE};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;
use url::Url;

use super::{
    Client,
    address::archive_url,
    answer::{self, Explanation},
    campaign_report, daily_dump,
    encoding::{AnnouncedGzip, Layers},
    redact::Redactor,
    transport::{Answer, Body, Request, header, spoken},
};
use crate::{
    config::{ArchiveSource, Report},
    outcome::{Evidence, Failure, Outcome, Remark},
    signature,
};

/// An archive on its way: the headers are judged, the bytes are still to come.
pub struct Download {
    /// Bytes to come; `None` when not announced, or when they are being unpacked on the way.
    pub content_length: Option<u64>,
    /// What the server calls it. Decides nothing: MoEngage sends zips as `application/gzip`.
    pub content_type: Option<String>,
    /// What the answer showed.
    pub evidence: Evidence,
    /// Whether the server announced a gzip that was kept, see [`AnnouncedGzip::Archive`].
    pub is_packed: bool,
    body: Body,
    layers: Layers,
    body_ended: bool,
    failed: Option<Failure>,
    redactor: Redactor,
}

impl Client {
    /// Requests the archive of `date`, signed with `secret`. `gzip` says what a gzip around the body means.
    ///
    /// The time for the attempt runs from here to the last byte. The headers must arrive within two minutes.
    ///
    /// # Errors
    ///
    /// Every answer that is not an archive, with its outcome.
    pub async fn open(
        &self,
        report: &Report,
        archive: &ArchiveSource,
        date: civil::Date,
        secret: &SecretString,
        gzip: AnnouncedGzip,
    ) -> Result<Download, Failure> {
        let started = Instant::now();
        let opened = async {
            let url = archive_url(report, archive, date);
            let source_url = url.to_string();
            let signature = signature::sign(&report.workspace.app_id, &report.file_name(date), secret);
            let redactor = Redactor::new(secret, &signature);
            let request =
                request(archive, url, &signature).map_err(|message| Failure::new(Outcome::Rejected, message))?;
            let answer = self.transport.ask(request, &redactor).await?;
            match answer::outcome(answer.status, answer.redirected_to.is_some()) {
                Some(outcome) => Err(refusal(outcome, answer, report, source_url, &redactor).await),
                None => Download::begin(answer, gzip, redactor).await,
            }
        }
        .await;
        tracing::debug!(
            workspace = report.workspace.name,
            report = report.id.name(),
            date = %date,
            http_status = opened.as_ref().map_or_else(|failure| failure.evidence.http_status, |_| Some(200)),
            elapsed_seconds = started.elapsed().as_secs_f64(),
            "asked MoEngage for an archive"
        );
        opened
    }
}

impl Download {
    /// Reads as far as it takes to know whether the body is the archive or only holds it.
    async fn begin(answer: Answer, gzip: AnnouncedGzip, mut redactor: Redactor) -> Result<Self, Failure> {
        if let Some(query) = &answer.presigned {
            redactor.withhold_query(query.expose_secret());
        }
        let announced = Layers::announced_by(&answer.headers).map_err(|layers| {
            Failure::after(
                &answer.evidence,
                Outcome::Corrupt,
                format!(
                    "the server announced {layers} layers of gzip around the archive, more than any server puts there"
                ),
            )
        })?;
        let mut download = Download {
            content_length: answer.body.announced_length(),
            content_type: header(&answer.headers, CONTENT_TYPE.as_str(), &redactor),
            evidence: answer.evidence,
            is_packed: gzip == AnnouncedGzip::Archive && announced.is_undecided(),
            layers: match gzip {
                AnnouncedGzip::Transport => announced,
                AnnouncedGzip::Archive => Layers::as_received(),
            },
            body: answer.body,
            body_ended: false,
            failed: None,
            redactor,
        };
        while download.layers.is_undecided() {
            download.receive().await?;
        }
        if download.layers.is_stripped() {
            download.content_length = None;
        }
        Ok(download)
    }

    /// The next bytes of the archive; `None` at its proper end. Waiting for the vendor here is what the minimum rate
    /// counts; the time between calls is the caller's own.
    ///
    /// # Errors
    ///
    /// `unavailable` when the vendor or the network gave up or was too slow, `corrupt` when the body is not whole.
    /// What failed once stays so.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let chunk = self.next_chunk().await;
        self.failed = chunk.as_ref().err().cloned();
        chunk
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(bytes) = self.layers.next().map_err(|error| self.badly_packed(error))? {
                return Ok(Some(bytes));
            }
            if self.body_ended {
                return Ok(None);
            }
            self.receive().await?;
        }
    }

    /// A text about the body, which may quote it, without the secrets that a server can have written into it.
    pub fn redact(&self, text: &str) -> String {
        self.redactor.redact(text)
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        match self.body.chunk().await {
            Ok(Some(bytes)) => self.layers.feed(bytes).map_err(|error| self.badly_packed(error))?,
            Ok(None) => {
                self.body_ended = true;
                self.layers.end().map_err(|error| self.badly_packed(error))?;
            }
            Err(failure) => return Err(Failure { message: self.redactor.redact(&failure.message), ..failure }),
        }
        Ok(())
    }

    fn badly_packed(&self, error: std::io::Error) -> Failure {
        let remark = Remark::DamagedWrapper;
        let message = self.redactor.redact(&format!("{remark}: {error}"));
        Failure { remark: Some(remark), ..Failure::after(&self.evidence, Outcome::Corrupt, message) }
    }
}

fn request(archive: &ArchiveSource, url: Url, signature: &SecretString) -> Result<Request, String> {
    match archive {
        ArchiveSource::CampaignReport { .. } => {
            campaign_report::request(url, signature).map_err(|error| error.to_string())
        }
        ArchiveSource::DailyDump { .. } => Ok(daily_dump::request(url, signature)),
    }
}

/// Every answer but 200.
async fn refusal(
    outcome: Outcome,
    mut answer: Answer,
    report: &Report,
    source_url: String,
    redactor: &Redactor,
) -> Failure {
    let status = answer.status;
    // A redirect's target is not MoEngage: it neither explains nor asks to wait, and its words may hold its own query.
    let (explanation, retry_after) = match answer.redirected_to {
        None if !status.is_success() => (
            answer::explanation(&mut answer.body, redactor).await,
            answer::retry_after(status, &answer.headers, answer.evidence.vendor_date),
        ),
        _ => (Explanation::default(), None),
    };
    let said = meaning(outcome, status, answer.redirected_to.as_deref(), report, &source_url);
    let request_id = explanation.request_id.clone().or(answer.evidence.request_id);
    let mut message = explanation.follow(said);
    if let Some(id) = &request_id {
        message = format!("{message} (request {id})");
    }
    Failure::after(&Evidence { request_id, retry_after, ..answer.evidence }, outcome, message)
}

/// What came back and what to do, in plain words.
fn meaning(
    outcome: Outcome,
    status: StatusCode,
    redirected_to: Option<&str>,
    report: &Report,
    source_url: &str,
) -> String {
    let answered = spoken(status);
    if let Some(place) = redirected_to {
        return format!("MoEngage redirected {source_url} to {place}, which answered {answered}");
    }
    match outcome {
        Outcome::Unauthorized => format!(
            "MoEngage refused the signature for {source_url} ({answered}); check app_id and secret key of workspace {}, the \
             key's scopes, and whether MoEngage's API firewall lists this machine's address",
            report.workspace.name
        ),
        // Seed 001 names the causes of 400; that of the firewall is MoEngage's current documentation.
        Outcome::NotPublished if status == StatusCode::BAD_REQUEST => format!(
            "MoEngage has no {source_url} ({answered}): it is not made yet, is gone, or has another name; or MoEngage's API \
             firewall does not list this machine's address"
        ),
        Outcome::NotPublished => format!("MoEngage has no {source_url} ({answered})"),
        Outcome::RateLimited => format!("MoEngage wants fewer requests ({answered} for {source_url})"),
        Outcome::Corrupt if status == StatusCode::NON_AUTHORITATIVE_INFORMATION => format!(
            "a proxy changed what MoEngage sent for {source_url} ({answered}), so it is not stored; have the proxy pass on \
             MoEngage's answers as they are"
        ),
        Outcome::Corrupt => format!("MoEngage answered {answered} without an archive for {source_url}"),
        _ if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            format!("the proxy wants other credentials ({answered} for {source_url}); see network.proxy")
        }
        _ => format!("MoEngage could not answer ({answered} for {source_url})"),
    }
}
