//! The executions of campaigns: one listing for each parent campaign. Some parents are refused.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tracing::info;

use super::{
    MOST_NAMED,
    reader::Reader,
    reading::{Acceptance, Reading, Readings, RepairCounts, Totals},
};
use crate::{
    moengage::{self, Question, Record},
    ndjson,
    outcome::{Failure, Outcome},
};

/// Number of parents refused with 403, without any other answer, after which the API itself counts as refused. Campaigns
/// of the dashboard are refused likewise: few of them must not end the listing, and thousands of requests would prove no more.
const REFUSALS_OF_THE_API: usize = 200;

/// Why most parents are refused (Get Child of a Campaign API).
const ONLY_OF_THE_API: &str = "MoEngage lists executions only of campaigns that were created through its API";

/// Most bytes of the executions of one campaign, which are collected in memory.
const MOST_EXECUTION_BYTES: usize = 32 * 1024 * 1024;

impl Reader<'_> {
    /// The executions of each parent. A refused parent is a warning: MoEngage lists executions only of campaigns that
    /// were created through its API.
    pub(super) async fn executions(&mut self, campaign_ids: &[String]) -> Result<(), Failure> {
        let parents = match campaign_ids {
            [] => self.parents().await?,
            ids => ids.iter().cloned().collect(),
        };
        let mut refusals = Refusals::default();
        let mut answered = 0_u64;
        for parent in parents {
            let found = match self.executions_of(&parent).await {
                Ok(found) => found,
                Err(failure) if is_refusal(&failure) => {
                    refusals.add(&parent, failure);
                    if answered == 0
                        && refusals.count >= REFUSALS_OF_THE_API
                        && let Some(failure) = refusals.of_the_api()
                    {
                        return Err(failure);
                    }
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            answered += 1;
            self.write(move || {
                let line = |json| ndjson::record_with("parent_campaign_id", &parent, json);
                Ok(found.iter().map(|(id, json)| (format!("{parent}\n{id}"), line(json))).collect())
            })
            .await?;
        }
        match refusals.of_all().filter(|_| answered == 0) {
            Some(failure) => Err(failure),
            None => {
                self.warnings.extend(refusals.warnings());
                Ok(())
            }
        }
    }

    async fn executions_of(&mut self, parent: &str) -> Result<BTreeMap<String, Box<RawValue>>, Failure> {
        let what = format!("executions of {}", moengage::shown(parent));
        let mut readings = Readings::of(format!("the listing of {what}"));
        loop {
            let before = self.id_bytes;
            let (found, reading, repairs) = self.read_executions_of(parent, &what).await?;
            match readings.judge(reading)? {
                Acceptance::Accepted(warnings) => {
                    self.accept(warnings, repairs);
                    return Ok(found);
                }
                Acceptance::Again(why) => {
                    self.id_bytes = before;
                    info!("{why}; reading it again");
                }
            }
        }
    }

    async fn read_executions_of(
        &mut self,
        parent: &str,
        what: &str,
    ) -> Result<(BTreeMap<String, Box<RawValue>>, Reading, RepairCounts), Failure> {
        let (mut found, mut bytes) = (BTreeMap::new(), 0);
        let (mut reading, mut repairs) = (Reading::default(), RepairCounts::default());
        let mut totals = Totals::default();
        let (mut number, mut received) = (0, 0);
        loop {
            number += 1;
            let question = Question::Executions { parent, page: number };
            let page = match self.ask(&question).await {
                Ok(page) => page,
                Err(refusal) if received > 0 && is_refusal(&refusal) => {
                    if !totals.is_reached(received) {
                        reading.remarks.push(format!(
                            "page {number} of the {what} was refused; the {received} of the pages before are stored: {refusal}"
                        ));
                        return Ok((found, reading, repairs));
                    }
                    break;
                }
                Err(failure) => return Err(failure),
            };
            repairs.add(&page, &question);
            totals.add(&page);
            received += page.items;
            let before = found.len();
            for Record { id, json } in page.records {
                bytes += id.len() + json.get().len();
                found.insert(id, json);
            }
            if bytes > MOST_EXECUTION_BYTES {
                let message = format!("the {what} are more than {MOST_EXECUTION_BYTES} bytes");
                return Err(Failure::new(Outcome::Corrupt, message));
            }
            let is_full = page.items >= question.limit();
            if page.total.is_none() && is_full && found.len() == before {
                reading.changed = Some(format!("page {number} of the {what} has nothing new"));
                break;
            }
            // A total that a full page reaches may be the number of items on that page.
            if found.len() == before || (!is_full && totals.is_reached(received)) {
                break;
            }
        }
        // The total is the number of executions, which may be more than MoEngage lists.
        match totals.judge(found.len() as u64, what) {
            Ok(None) => {}
            Ok(Some(remark)) => reading.remarks.push(remark),
            Err(changed) => reading.changed = Some(changed),
        }
        Ok((found, reading, repairs))
    }
}

/// Whether MoEngage refuses the parent or the API, not the credentials.
fn is_refusal(failure: &Failure) -> bool {
    failure.outcome == Outcome::Rejected
        || (failure.outcome == Outcome::Unauthorized && failure.evidence.http_status == Some(403))
}

/// Parents of executions that were refused.
#[derive(Default)]
struct Refusals {
    count: usize,
    /// Messages of the first ones.
    named: Vec<String>,
    /// The first one that is about its parent alone.
    of_a_parent: Option<Failure>,
    /// The first 403, which may be about the API.
    forbidden: Option<Failure>,
}

impl Refusals {
    fn add(&mut self, parent: &str, failure: Failure) {
        self.count += 1;
        if self.named.len() < MOST_NAMED {
            let parent = moengage::shown(parent);
            self.named.push(format!("the executions of {parent} are not here, they were refused: {}", failure.message));
        }
        let kind = match failure.outcome {
            Outcome::Unauthorized => &mut self.forbidden,
            _ => &mut self.of_a_parent,
        };
        kind.get_or_insert(failure);
    }

    /// The refusal of the API: all refusals were 403.
    fn of_the_api(&self) -> Option<Failure> {
        self.forbidden.clone().filter(|_| self.of_a_parent.is_none())
    }

    /// How the attempt fails if all parents were refused.
    fn of_all(&self) -> Option<Failure> {
        let of_a_parent = self.of_a_parent.clone().map(|failure| Failure {
            message: match self.count {
                1 => format!("the only parent of executions was refused ({ONLY_OF_THE_API}): {}", failure.message),
                count => format!(
                    "all {count} parents of executions were refused ({ONLY_OF_THE_API}); the first: {}",
                    failure.message
                ),
            },
            ..failure
        });
        self.of_the_api().or(of_a_parent)
    }

    fn warnings(self) -> Vec<String> {
        let more = self.count - self.named.len();
        let rest = (more > 0).then(|| format!("the executions of {more} more parents are not here, they were refused"));
        self.named.into_iter().chain(rest).collect()
    }
}
