//! Plots: a panel for each cell, a bar for each contestant, a whisker for how sure it is, and a
//! line at the better bare loop. Plain SVG, readable by a browser and as source.

use crate::contestant::{Contestant, Role};
use crate::report::text::{number, players};
use crate::statistics::{Summary, median};
use crate::tournament::{Column, Results, Table};
use crate::workload::Metric;

/// One metric of a workload in all its cells.
pub(crate) fn plot(results: &Results, table: &Table, metric: &Metric) -> String {
    let panels: Vec<Panel<'_>> = table
        .cells
        .iter()
        .map(|column| Panel::of(results, column, metric))
        .filter(|panel| !panel.bars.is_empty())
        .collect();
    let columns = panels.len().clamp(1, COLUMNS);
    let rows = panels.len().div_ceil(columns);
    let bars = panels.iter().map(|panel| panel.bars.len()).max();
    let panel_height = PANEL_HEAD + bars.unwrap_or_default() as f64 * BAR_STEP + PANEL_FOOT;
    // The heading may be wider than a panel.
    let width = MARGIN * 2.0 + columns.max(2) as f64 * PANEL_WIDTH;
    let height = HEAD + rows as f64 * panel_height + MARGIN;
    let mut svg = Svg::new(width, height);
    let unit = match metric.unit {
        "" => String::new(),
        unit => format!(", {unit}"),
    };
    let direction = if metric.less_is_better {
        "less"
    } else {
        "more"
    };
    let title = format!("{}: {}{unit}", table.name, metric.title);
    svg.text(MARGIN, 28.0, "title", &title);
    let note = format!(
        "{direction} is better · bar: median, whisker: where it is in 95 of 100 cases · dashed: the better bare loop"
    );
    svg.text(MARGIN, 46.0, "note", &note);
    for (place, panel) in panels.iter().enumerate() {
        let left = MARGIN + (place % columns) as f64 * PANEL_WIDTH;
        let top = HEAD + (place / columns) as f64 * panel_height;
        panel.draw(&mut svg, left, top);
    }
    svg.finish()
}

struct Panel<'a> {
    title: &'a str,
    bars: Vec<Bar>,
    /// The better of the limits.
    limit: Option<f64>,
    /// The value at the right edge.
    most: f64,
}

struct Bar {
    name: &'static str,
    class: &'static str,
    summary: Summary,
}

impl<'a> Panel<'a> {
    fn of(results: &Results, column: &'a Column, metric: &Metric) -> Self {
        let bar = |contestant: &Contestant| {
            Some(Bar {
                name: contestant.name,
                class: match contestant.role {
                    Role::Limit => "limit",
                    Role::Ours => "ours",
                    Role::Peer => "peer",
                },
                summary: column.summary(contestant.name, metric)?,
            })
        };
        let bars: Vec<Bar> = players(results).filter_map(bar).collect();
        let limits = bars.iter().filter(|bar| bar.class == "limit");
        let limits = limits.map(|bar| bar.summary.median);
        let limit = if metric.less_is_better {
            limits.reduce(f64::min)
        } else {
            limits.reduce(f64::max)
        };
        // One outlier must not make all others look equal: a bar is cut at this many medians.
        let middle = median(bars.iter().map(|bar| bar.summary.median));
        let cut = middle.map_or(0.0, |middle| middle * CUT);
        let longest = bars
            .iter()
            .map(|bar| bar.summary.median * 1.1)
            .fold(0.0, f64::max);
        Self {
            title: &column.cell.label,
            bars,
            limit,
            most: longest.min(cut),
        }
    }

    fn draw(&self, svg: &mut Svg, left: f64, top: f64) {
        svg.text(left, top + 14.0, "panel", self.title);
        let zero = left + NAMES_WIDTH;
        let length = PANEL_WIDTH - NAMES_WIDTH - VALUE_WIDTH;
        let at = |value: f64| zero + (value / self.most).min(1.0) * length;
        for (row, bar) in self.bars.iter().enumerate() {
            let y = top + PANEL_HEAD + row as f64 * BAR_STEP;
            let end = at(bar.summary.median);
            let base = y + BAR_HEIGHT - 2.0;
            svg.text(zero - 6.0, base, &format!("name {}", bar.class), bar.name);
            svg.bar(zero, y, end - zero, bar.class);
            let middle = y + BAR_HEIGHT / 2.0;
            let (low, high) = (at(bar.summary.low), at(bar.summary.high));
            svg.line((low, middle), (high, middle), "whisker");
            let cut = if bar.summary.median > self.most {
                " »"
            } else {
                ""
            };
            let label = format!("{}{cut}", number(bar.summary.median));
            svg.text(end.max(high) + 4.0, base, "value", &label);
        }
        if let Some(limit) = self.limit {
            let bottom = top + PANEL_HEAD + self.bars.len() as f64 * BAR_STEP;
            let x = at(limit);
            svg.line((x, top + PANEL_HEAD - 4.0), (x, bottom), "best");
        }
    }
}

/// A plot that is being written.
struct Svg(String);

impl Svg {
    fn new(width: f64, height: f64) -> Self {
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n"
        );
        text += STYLE;
        text += "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n";
        Self(text)
    }

    fn text(&mut self, x: f64, y: f64, class: &str, words: &str) {
        let words = words.replace('&', "&amp;").replace('<', "&lt;");
        self.0 += &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{words}</text>\n");
    }

    fn bar(&mut self, x: f64, y: f64, width: f64, class: &str) {
        self.0 += &format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" \
             class=\"{class}-bar\"/>\n"
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.0 += &format!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>\n"
        );
    }

    fn finish(self) -> String {
        self.0 + "</svg>\n"
    }
}

const STYLE: &str = "<style>
text { fill: #333333 }
.title { font-size: 18px; font-weight: bold }
.note { font-size: 12px; fill: #666666 }
.panel { font-size: 13px; font-weight: bold }
.name { text-anchor: end }
.ours { font-weight: bold; fill: #0b5394 }
.value { font-size: 10px; fill: #444444 }
.limit-bar { fill: #b7b7b7 }
.ours-bar { fill: #1f77c9 }
.peer-bar { fill: #e3b778 }
.whisker { stroke: #222222; stroke-width: 1.2; opacity: 0.6 }
.best { stroke: #666666; stroke-dasharray: 4 3 }
</style>
";

const COLUMNS: usize = 3;
const PANEL_WIDTH: f64 = 340.0;
const NAMES_WIDTH: f64 = 90.0;
const VALUE_WIDTH: f64 = 70.0;
const PANEL_HEAD: f64 = 26.0;
const PANEL_FOOT: f64 = 22.0;
const BAR_STEP: f64 = 16.0;
const BAR_HEIGHT: f64 = 12.0;
const HEAD: f64 = 66.0;
const MARGIN: f64 = 20.0;
/// How many medians long a bar may be.
const CUT: f64 = 2.2;
