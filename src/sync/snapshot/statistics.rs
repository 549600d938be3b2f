//! The statistics of campaigns: pages by offset. Their total may be wrong.

use std::collections::{BTreeSet, HashSet};

use tracing::info;

use super::{
    reader::Reader,
    reading::{Acceptance, Reading, Readings, RepairCounts, Totals},
};
use crate::{
    config::StatsQuery,
    moengage::{self, Question, Record},
    ndjson,
    outcome::{Failure, Outcome},
};

impl Reader<'_> {
    pub(super) async fn statistics(&mut self, query: &StatsQuery) -> Result<(), Failure> {
        let ids: BTreeSet<_> = query.campaign_ids.iter().cloned().collect();
        let ids = Vec::from_iter(ids);
        let batches: Vec<&[String]> = match ids.as_slice() {
            [] => vec![&[]],
            ids => ids.chunks(Question::CAMPAIGN_IDS).collect(),
        };
        for batch in batches {
            let mut readings = Readings::of("the list of campaigns with statistics");
            loop {
                // Discards campaigns that only an earlier reading had. A batch of named campaigns is one page.
                if ids.is_empty() {
                    self.restart();
                }
                let (reading, repairs) = self.statistics_of(query, batch).await?;
                match readings.judge(reading)? {
                    Acceptance::Accepted(warnings) => {
                        self.accept(warnings, repairs);
                        break;
                    }
                    Acceptance::Again(why) => info!("{why}; reading it again"),
                }
            }
        }
        Ok(())
    }

    async fn statistics_of(
        &mut self,
        query: &StatsQuery,
        campaign_ids: &[String],
    ) -> Result<(Reading, RepairCounts), Failure> {
        let window = query.window(self.partition().id.date);
        let what = "campaigns with statistics";
        let (mut reading, mut repairs) = (Reading::default(), RepairCounts::default());
        let mut seen = HashSet::new();
        let mut totals = Totals::default();
        let mut offset = 0;
        loop {
            let question = Question::Stats { query, window, campaign_ids, offset };
            let page = match self.ask(&question).await {
                Ok(page) => page,
                // Past MoEngage's total, a page may not exist.
                Err(failure) if totals.is_reached(offset) && may_be_past_the_end(&failure) => {
                    if failure.outcome != Outcome::Rejected {
                        reading
                            .remarks
                            .push(format!("{}, past MoEngage's total, could not be read: {failure}", question.place()));
                    }
                    break;
                }
                Err(failure) => return Err(failure),
            };
            repairs.add(&page, &question);
            totals.add(&page);
            offset += question.limit();
            let is_full = page.items >= question.limit();
            // Named campaigns fit on one page. A total that a full page reaches may be the number of items on that page, or too
            // small.
            let is_last = !campaign_ids.is_empty() || (!page.is_followed && !is_full && totals.is_reached(offset));
            let is_promised = page.is_followed && page.total.is_none();
            let (is_empty, before) = (page.items == 0, seen.len());
            seen.extend(page.records.iter().map(|record| record.id.clone()));
            let shape = query.shape;
            let lines = move |Record { id, json }| match ndjson::statistics(&id, &json, shape) {
                Ok(lines) => Ok((id, lines)),
                Err(too_much) => Err(Failure::new(Outcome::Corrupt, too_much.to_string())),
            };
            self.keep(page, lines).await?;
            if is_promised && seen.len() == before {
                let odd = "a page of statistics announces another page and has nothing new".to_owned();
                match is_empty {
                    true => reading.doubts.push(odd),
                    false => reading.changed = Some(odd),
                }
                break;
            }
            if is_last || is_empty || seen.len() == before {
                break;
            }
        }
        match (totals.judge(seen.len() as u64, what), campaign_ids) {
            (Ok(None), _) => {}
            // MoEngage's total and its pages agree otherwise, so a second reading decides.
            (Ok(Some(doubt)), []) => reading.doubts.push(doubt),
            // The total includes named campaigns without statistics.
            (Ok(Some(remark)), named) => {
                let missing: Vec<_> =
                    named.iter().filter(|id| !seen.contains(*id)).map(|id| moengage::shown(id)).collect();
                reading.remarks.push(match missing.is_empty() {
                    true => remark,
                    false => format!("{remark}; without statistics: {}", missing.join(", ")),
                });
            }
            (Err(changed), _) => reading.changed = Some(changed),
        }
        Ok((reading, repairs))
    }
}

/// Whether a page past MoEngage's total may have failed because it does not exist.
fn may_be_past_the_end(failure: &Failure) -> bool {
    matches!(failure.outcome, Outcome::Rejected | Outcome::Unavailable | Outcome::Corrupt)
}
