//! The JSON of `reconcile`.

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::Serialize;

/// How the counts of a campaign on one day compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReconciliationResult {
    /// All counts that both have are equal.
    Equal,
    /// Some count differs, or there is none that both have.
    Different,
    /// The statistics do not have the campaign on that day.
    OnlyInReport,
    /// The archive does not have it.
    OnlyInStats,
}

/// One count of a campaign on one day.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReconciledCount {
    /// `sent`, `delivered`, `impression` or `click`, as in the statistics.
    pub name: String,
    /// The number in the archive.
    pub in_report: Option<i64>,
    /// The number in the statistics.
    pub in_stats: Option<i64>,
    /// By how much the statistics have more; null if only one has it.
    pub difference: Option<i64>,
}

/// A campaign on one day.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReconciledCampaign {
    /// The day of the numbers, not the partition's date.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Id of the campaign.
    pub campaign_id: String,
    /// How they compare.
    pub result: ReconciliationResult,
    /// The counts that both have; without any, those of either.
    pub counts: Vec<ReconciledCount>,
}

/// What `reconcile` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Reconciliation {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report of archives.
    pub report: String,
    /// Id of the report of statistics.
    pub with: String,
    /// Number of equal campaigns, each day by itself.
    pub equal: u64,
    /// Number of different ones.
    pub different: u64,
    /// Number of those that the archive alone has.
    pub only_in_report: u64,
    /// Number of those that the statistics alone have.
    pub only_in_stats: u64,
    /// Days in the archives whose statistics are not stored. They are not compared.
    #[schemars(with = "Vec<String>")]
    pub days_without_stats: Vec<Date>,
    /// Every campaign, by day and id.
    pub campaigns: Vec<ReconciledCampaign>,
}
