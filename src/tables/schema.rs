//! The columns of a table over time.
//!
//! This file owns `_schema.json`, and how the columns of one date are added to it: no column is ever removed, and none
//! changes its name or type. It must not know formats or where the schema is stored. The caller must extend the newest
//! schema and store it before another date does: of two that were extended independently, the second would replace the
//! first.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::{
    Survey,
    names::{self, Known},
    types::Observed,
};
use crate::table_words::ColumnType;

/// All columns that a table ever had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// In the order in which they were added.
    pub columns: Vec<Column>,
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, unique in the table.
    pub name: String,
    /// The heading that it was named after.
    pub heading: String,
    /// Its type; `None` until a file has a value in it. Until then, objects do not have the column.
    #[serde(rename = "type")]
    pub column_type: Option<ColumnType>,
    /// The first date of which a file has the column.
    pub first_date: Date,
    /// The last one.
    pub last_date: Date,
}

/// A difference between a table and the files of a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The files have a column that the table did not have.
    New {
        /// Its name.
        name: String,
        /// Its heading.
        heading: String,
    },
    /// The files of the newest date lack a column that the date before had.
    Vanished {
        /// Its name.
        name: String,
        /// Its heading.
        heading: String,
    },
    /// The configuration changed the type of a column. Objects that exist keep the old type until they are made again.
    Retyped {
        /// Its name.
        name: String,
        /// The type until now.
        from: ColumnType,
        /// The type from now on.
        to: ColumnType,
    },
}

/// A schema with the columns of a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extended {
    /// The schema to store, and to write the parts with.
    pub schema: Schema,
    /// What changed. Nothing if the schema had been extended by the same files before, or had no column.
    pub changes: Vec<Change>,
    /// For each part, the column of each of its headings, as positions in the schema.
    pub columns: Vec<Vec<usize>>,
    /// By position in the schema, whether the values of these parts decide the type of the column, or that it has none.
    pub inferred: Vec<bool>,
}

impl Schema {
    /// Adds the columns of all parts of one date. A column without a type gets it from the values of all of them together.
    /// `overrides` are types that the configuration gives to columns, by name.
    pub fn extend(&self, parts: &[Survey], date: Date, overrides: &BTreeMap<String, ColumnType>) -> Extended {
        let mut columns = self.columns.clone();
        let mut observed: BTreeMap<usize, Observed> = BTreeMap::new();
        let positions = parts.iter().map(|part| {
            let positions = place(&mut columns, &part.headings, date);
            for (position, seen) in positions.iter().zip(&part.columns) {
                observed.entry(*position).or_default().join(seen);
            }
            positions
        });
        let positions: Vec<Vec<usize>> = positions.collect();
        let mut inferred = vec![false; columns.len()];
        for (position, observed) in &observed {
            let column = &mut columns[*position];
            column.first_date = column.first_date.min(date);
            column.last_date = column.last_date.max(date);
            inferred[*position] = column.column_type.is_none() && !overrides.contains_key(&column.name);
            column.column_type = column.column_type.or_else(|| observed.column_type(&column.name));
        }
        for column in &mut columns {
            column.column_type = overrides.get(&column.name).copied().or(column.column_type);
        }
        let present = observed.into_keys().collect();
        let schema = Schema { columns };
        Extended { changes: self.changes(&schema, &present, date), schema, columns: positions, inferred }
    }

    /// The columns that objects have, each with its position.
    pub(super) fn typed(&self) -> impl Iterator<Item = (usize, &Column, ColumnType)> {
        self.columns.iter().enumerate().filter_map(|(position, column)| Some((position, column, column.column_type?)))
    }

    /// What differs in `after`, which has the columns at `present` on `date`.
    fn changes(&self, after: &Schema, present: &BTreeSet<usize>, date: Date) -> Vec<Change> {
        let Some(newest) = self.columns.iter().map(|column| column.last_date).max() else { return Vec::new() };
        let mut changes = Vec::new();
        for (position, column) in after.columns.iter().enumerate() {
            let (name, heading) = (column.name.clone(), column.heading.clone());
            let Some(before) = self.columns.get(position) else {
                changes.push(Change::New { name, heading });
                continue;
            };
            if before.last_date == newest && newest < date && !present.contains(&position) {
                changes.push(Change::Vanished { name: name.clone(), heading });
            }
            match (before.column_type, column.column_type) {
                (Some(from), Some(to)) if from != to => changes.push(Change::Retyped { name, from, to }),
                _ => {}
            }
        }
        changes
    }
}

/// The position in `columns` of each heading; new ones are added.
fn place(columns: &mut Vec<Column>, headings: &[String], date: Date) -> Vec<usize> {
    let known: Vec<_> = columns.iter().map(|it| Known { name: &it.name, heading: &it.heading }).collect();
    let names = names::columns(headings, &known);
    let place = |(name, heading): (String, &String)| {
        columns.iter().position(|column| column.name == name).unwrap_or_else(|| {
            let heading = heading.clone();
            columns.push(Column { name, heading, column_type: None, first_date: date, last_date: date });
            columns.len() - 1
        })
    };
    names.into_iter().zip(headings).map(place).collect()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::tables::{Cell, CellKind};

    /// A file with one row. Headings and values are separated by commas.
    fn file(headings: &str, values: &str) -> Survey {
        let observe = |text: &str| {
            let mut observed = Observed::default();
            observed.observe(Cell { kind: CellKind::Text, text });
            observed
        };
        Survey {
            headings: headings.split(',').map(str::to_owned).collect(),
            columns: values.split(',').map(observe).collect(),
            rows: Some(1),
            separator: Some(b','),
        }
    }

    fn extend(schema: &Schema, day: i8, headings: &str, values: &str) -> Extended {
        schema.extend(&[file(headings, values)], date(2026, 11, day), &BTreeMap::new())
    }

    fn types(schema: &Schema) -> Vec<(&str, Option<ColumnType>)> {
        schema.columns.iter().map(|column| (column.name.as_str(), column.column_type)).collect()
    }

    #[test]
    fn a_type_comes_from_the_first_file_with_a_value_and_never_changes() {
        let first = extend(&Schema::default(), 1, "Sent,Goal", "1,").schema;
        assert_eq!(types(&first), [("sent", Some(ColumnType::Int64)), ("goal", None)]);
        let second = extend(&first, 2, "Sent,Goal", "none,2.5").schema;
        assert_eq!(types(&second), [("sent", Some(ColumnType::Int64)), ("goal", Some(ColumnType::Double))]);
        let third = extend(&second, 3, "Goal,Sent", "2,").schema;
        assert_eq!(types(&third), types(&second));
    }

    #[test]
    fn columns_that_come_and_go_are_reported_once() {
        let first = extend(&Schema::default(), 1, "Sent,Variation", "1,a");
        assert_eq!(first.changes, []);
        let second = extend(&first.schema, 2, "Sent,Campaign Version Name", "1,a");
        let new = Change::New { name: "campaign_version_name".into(), heading: "Campaign Version Name".into() };
        let vanished = Change::Vanished { name: "variation".into(), heading: "Variation".into() };
        assert_eq!(second.changes, [vanished, new]);
        assert_eq!(second.columns, [[0, 2]]);
        let again = extend(&second.schema, 2, "Sent,Campaign Version Name", "1,a");
        assert_eq!((again.changes, &again.schema), (Vec::new(), &second.schema));
        let third = extend(&second.schema, 3, "Sent,Campaign Version Name", "1,a");
        assert_eq!(third.changes, []);
        let dates: Vec<_> = third.schema.columns.iter().map(|it| (it.first_date.day(), it.last_date.day())).collect();
        assert_eq!(dates, [(1, 3), (1, 1), (2, 3)]);
        let earlier = extend(&third.schema, 1, "Sent,Variation", "1,a");
        assert_eq!(earlier.changes, []);
    }

    #[test]
    fn two_parts_of_a_date_give_a_column_one_type() {
        let parts = [file("Sent", "1"), file("Clicks,Sent", "2,2.5")];
        let extended = Schema::default().extend(&parts, date(2026, 11, 1), &BTreeMap::new());
        assert_eq!(types(&extended.schema), [("sent", Some(ColumnType::Double)), ("clicks", Some(ColumnType::Int64))]);
        assert_eq!(extended.columns, [vec![0], vec![1, 0]]);
    }

    #[test]
    fn the_configuration_overrides_a_type_with_or_without_values() {
        let overrides = BTreeMap::from([("sent".to_owned(), ColumnType::String), ("goal".into(), ColumnType::Double)]);
        let schema = extend(&Schema::default(), 1, "Sent,Goal", "1,").schema;
        let extended = schema.extend(&[file("Sent,Goal", "1,")], date(2026, 11, 2), &overrides);
        assert_eq!(types(&extended.schema), [("sent", Some(ColumnType::String)), ("goal", Some(ColumnType::Double))]);
        let retyped = Change::Retyped { name: "sent".into(), from: ColumnType::Int64, to: ColumnType::String };
        assert_eq!(extended.changes, [retyped]);
    }

    #[test]
    fn the_schema_file_has_the_documented_form() {
        let schema = extend(&Schema::default(), 21, "All Platform Sent,Goal", "1,").schema;
        let json = serde_json::to_string(&schema).unwrap();
        assert_eq!(
            json,
            r#"{"columns":[{"name":"all_platform_sent","heading":"All Platform Sent","type":"int64","first_date":"2026-11-21","last_date":"2026-11-21"},{"name":"goal","heading":"Goal","type":null,"first_date":"2026-11-21","last_date":"2026-11-21"}]}"#
        );
        assert_eq!(serde_json::from_str::<Schema>(&json).unwrap(), schema);
    }

    proptest! {
        #[test]
        fn no_order_of_dates_loses_a_column_and_no_extension_changes_one(
            files in proptest::collection::vec(proptest::collection::vec(("[a-c]|A|a ", "1?|x"), 1..5), 1..5)
        ) {
            let files: Vec<_> = files.iter().map(|cells| {
                let (headings, values): (Vec<_>, Vec<_>) = cells.iter().cloned().unzip();
                (headings.join(","), values.join(","))
            }).collect();
            let run = |order: Vec<usize>| {
                let mut schema = Schema::default();
                for index in order {
                    let day = i8::try_from(index).unwrap() + 1;
                    let after = extend(&schema, day, &files[index].0, &files[index].1).schema;
                    for (before, after) in schema.columns.iter().zip(&after.columns) {
                        prop_assert_eq!((&before.name, &before.heading), (&after.name, &after.heading));
                        prop_assert!(before.column_type.is_none() || before.column_type == after.column_type);
                    }
                    schema = after;
                }
                Ok(schema)
            };
            let forwards = run((0..files.len()).collect())?;
            let backwards = run((0..files.len()).rev().collect())?;
            let dates = |schema: &Schema| {
                let columns = schema.columns.iter();
                columns.map(|it| (it.name.clone(), (it.first_date, it.last_date))).collect::<BTreeMap<_, _>>()
            };
            let names = |schema: &Schema| dates(schema).into_keys().collect::<Vec<_>>();
            prop_assert_eq!(names(&forwards), names(&backwards));
        }
    }
}
