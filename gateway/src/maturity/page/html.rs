//! The status page as one HTML document that needs nothing else.

use std::fmt;
use std::fmt::Write as _;

use super::{NONE, percent, summary, verdict};
use crate::maturity::moment;
use crate::maturity::stage::Stage;
use crate::maturity::status::{ComponentStatus, Status};

const STYLE: &str = "\
:root{color-scheme:light dark;--ok:#1a7f37;--no:#cf222e;--wait:#9a6700;--line:#8884;--bar:#8883}\
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%;margin:.5rem 0 1rem}\
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}\
.bar{background:var(--bar);border-radius:4px;height:.7rem;width:9rem;max-width:100%}\
.bar div{background:var(--ok);border-radius:4px;height:100%}\
.stage{display:inline-block;padding:0 .5rem;border-radius:1rem;border:1px solid var(--line)}\
.ok{color:var(--ok)}.no{color:var(--no)}.wait{color:var(--wait)}.ok,.no,.wait{font-weight:600}\
section{border-top:2px solid var(--line);margin-top:2rem}small{opacity:.75}";

/// Text from outside, harmless between tags and in quoted attributes.
struct Escaped<'a>(&'a str);

/// A document under way.
struct Page(String);

/// A table of all components with bars, then each of them.
pub(crate) fn html(status: &Status) -> String {
    let title = Escaped(&status.title);
    let mut page = Page(String::new());
    page.put(format_args!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}: maturity status</title><style>{STYLE}</style></head><body>\n\
         <h1>{title}: maturity status</h1>\n<p>{}<br><small>evaluated {}</small></p>\n",
        Escaped(&summary(status)),
        moment::shown(status.evaluated),
    ));
    page.overview(status);
    status.components.iter().for_each(|component| page.component(component));
    page.put(format_args!("</body></html>\n"));
    page.0
}

fn tone(component: &ComponentStatus) -> &'static str {
    match (component.holds, component.ready || component.next.is_none()) {
        (false, _) => "no",
        (true, true) => "ok",
        (true, false) => "wait",
    }
}

// === impl Escaped ===

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() && c != '\n' => f.write_char(' ')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

// === impl Page ===

impl Page {
    fn put(&mut self, text: fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a string takes any text");
    }

    /// A share from 0 to 1 as a bar.
    fn bar(&mut self, share: f64) {
        let width = share.clamp(0.0, 1.0) * 100.0;
        self.put(format_args!("<div class=\"bar\"><div style=\"width:{width:.1}%\"></div></div>"));
    }

    fn overview(&mut self, status: &Status) {
        self.put(format_args!(
            "<table><tr><th>component<th>stage<th>coverage<th>gates passed<th>state</tr>\n"
        ));
        for component in &status.components {
            let (name, claimed) = (Escaped(&component.name), component.claimed);
            self.put(format_args!(
                "<tr><td><a href=\"#{name}\">{name}</a><td><span class=\"stage\">{claimed}</span><td>"
            ));
            if let Some(share) = component.coverage {
                self.bar(share);
            }
            let (passed, all) =
                (component.gates.iter().filter(|gate| gate.passed).count(), component.gates.len());
            self.put(format_args!("{}<td>", percent(component.coverage)));
            #[expect(clippy::cast_precision_loss, reason = "a few gates")]
            self.bar(passed as f64 / all.max(1) as f64);
            let tone = tone(component);
            self.put(format_args!(
                "{passed} of {all}<td class=\"{tone}\">{}</tr>\n",
                Escaped(&verdict(component))
            ));
        }
        self.put(format_args!("</table>\n"));
    }

    fn component(&mut self, component: &ComponentStatus) {
        let (name, tone) = (Escaped(&component.name), tone(component));
        self.put(format_args!(
            "<section id=\"{name}\"><h2>{name} <span class=\"stage\">{}</span></h2>\n<p>{}</p>\n\
             <p class=\"{tone}\">{}</p>\n<p><small>owner: {} · group: {} · coverage: {}</small></p>\n",
            component.claimed,
            Escaped(&component.about.description),
            Escaped(&verdict(component)),
            Escaped(component.about.owner.as_deref().unwrap_or(NONE)),
            Escaped(component.about.group.as_deref().unwrap_or(NONE)),
            percent(component.coverage),
        ));
        self.list("Key features", &component.about.features);
        self.list("Dependencies", &component.about.dependencies);
        for stage in Stage::ALL.into_iter().filter(|stage| component.gates_before(*stage).next().is_some()) {
            self.criteria(component, stage);
        }
        self.files(component);
        self.evidence(component);
        self.promotions(component);
        self.list("Next steps", &component.about.next_steps);
        self.put(format_args!("</section>\n"));
    }

    fn list(&mut self, heading: &str, items: &[String]) {
        if items.is_empty() {
            return;
        }
        self.put(format_args!("<h3>{heading}</h3>\n<ul>"));
        items.iter().for_each(|item| self.put(format_args!("<li>{}", Escaped(item))));
        self.put(format_args!("</ul>\n"));
    }

    fn criteria(&mut self, component: &ComponentStatus, stage: Stage) {
        let (passed, all) = component.count(stage);
        self.put(format_args!("<h3>For {stage}: {passed} of {all}</h3>\n<table>"));
        for gate in component.gates_before(stage) {
            let (tone, mark) = match (gate.passed, stage <= component.claimed) {
                (true, _) => ("ok", "✓"),
                (false, true) => ("no", "✗"),
                (false, false) => ("wait", "needed"),
            };
            let (name, why) = (gate.gate.name().replace('_', " "), Escaped(&gate.why));
            self.put(format_args!("<tr><td class=\"{tone}\">{mark}<td>{name}<td>{why}</tr>\n"));
        }
        self.put(format_args!("</table>\n"));
    }

    fn files(&mut self, component: &ComponentStatus) {
        if component.files.is_empty() {
            return;
        }
        self.put(format_args!("<h3>Coverage by file</h3>\n<table><tr><th>file<th>lines run<th>of</tr>\n"));
        for file in &component.files {
            self.put(format_args!("<tr><td>{}<td>", Escaped(&file.path)));
            #[expect(clippy::cast_precision_loss, reason = "no file has 2^53 lines")]
            self.bar(file.lines_run as f64 / file.lines.max(1) as f64);
            self.put(format_args!("{}<td>{}</tr>\n", file.lines_run, file.lines));
        }
        self.put(format_args!("</table>\n"));
    }

    fn evidence(&mut self, component: &ComponentStatus) {
        if component.evidence.is_empty() {
            return;
        }
        self.put(format_args!("<h3>Evidence</h3>\n<table><tr><th>kind<th>report<th>date<th>counts</tr>\n"));
        for report in &component.evidence {
            let (kind, path) = (report.kind.name(), Escaped(&report.path));
            let date = report.date.map_or(NONE.to_owned(), moment::shown);
            self.put(format_args!("<tr><td>{kind}<td>{path}<td>{date}<td>"));
            match &report.problem {
                None => self.put(format_args!("<span class=\"ok\">yes</span></tr>\n")),
                Some(why) => self.put(format_args!("<span class=\"no\">no</span>: {}</tr>\n", Escaped(why))),
            }
        }
        self.put(format_args!("</table>\n"));
    }

    fn promotions(&mut self, component: &ComponentStatus) {
        if component.promotions.is_empty() {
            return;
        }
        self.put(format_args!("<h3>Promotion history</h3>\n<ul>"));
        for entry in &component.promotions {
            let since = entry.since.map_or("not entered".to_owned(), moment::day);
            self.put(format_args!("<li>{}: {since}", entry.stage));
            if let Some(by) = &entry.signed {
                self.put(format_args!(", signed by {}", Escaped(by)));
            }
        }
        self.put(format_args!("</ul>\n"));
    }
}
