//! What a query says, read by a parser of PromQL: its selectors with what is around them, and the labels it asks for.

use std::collections::BTreeSet;

use promql_parser::parser::{self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorSelector};

/// Grafana's variables as they could be in a query that is sent.
pub(super) fn filled(expr: &str) -> String {
    let durations = expr.replace("$__rate_interval", RATE_INTERVAL).replace("$__range", RANGE);
    assert!(!durations.contains("$__"), "{expr} has a variable that nothing here fills");
    durations
}

/// No query of ours is written with these.
const RATE_INTERVAL: &str = "17m";
const RANGE: &str = "19h";

/// A query that has been read.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) selectors: Vec<Selector>,
}

/// A selector of series, and what is done to it.
#[derive(Debug)]
pub(super) struct Selector {
    pub(super) name: String,
    /// Label and value of each matcher.
    pub(super) matchers: Vec<(String, String)>,
    /// Labels that the aggregations around it, and joins with it, ask for.
    pub(super) asked: BTreeSet<String>,
    /// The function around its range, if it has one, and which interval that is.
    pub(super) over: Option<(&'static str, Window)>,
    /// Whether a quantile of a histogram is made of it.
    pub(super) quantile: bool,
}

/// The interval of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// `$__rate_interval`
    Rate,
    /// `$__range`
    Range,
    /// A fixed time.
    Fixed,
}

#[derive(Clone, Default)]
struct Around {
    asked: BTreeSet<String>,
    function: Option<&'static str>,
    quantile: bool,
}

/// Reads a query as Grafana has it.
///
/// # Errors
/// Why it is none.
pub(super) fn read(expr: &str) -> Result<Query, String> {
    let parsed = parser::parse(&filled(expr)).map_err(|why| format!("{expr}: {why}"))?;
    let mut query = Query::default();
    query.visit(&parsed, &Around::default());
    Ok(query)
}

// === impl Query ===

impl Query {
    fn visit(&mut self, expr: &Expr, around: &Around) {
        match expr {
            Expr::Aggregate(AggregateExpr { expr, param, modifier, .. }) => {
                let inner = around.with(modifier.as_ref());
                param.iter().for_each(|param| self.visit(param, around));
                self.visit(expr, &inner);
            }
            Expr::Binary(BinaryExpr { lhs, rhs, modifier, .. }) => {
                let matching = modifier.as_ref().and_then(|modifier| modifier.matching.as_ref());
                let inner = around.with(matching);
                // What one side of a join brings, the other need not have.
                let joined = modifier.as_ref().is_some_and(|modifier| modifier.card.labels().is_some());
                let inner = if joined { Around::default().with(matching) } else { inner };
                self.visit(lhs, &inner);
                self.visit(rhs, &inner);
            }
            Expr::Call(Call { func, args }) => {
                let quantile = around.quantile || func.name == "histogram_quantile";
                let inner = Around { function: Some(func.name), quantile, ..around.clone() };
                args.args.iter().for_each(|arg| self.visit(arg, &inner));
            }
            Expr::Paren(paren) => self.visit(&paren.expr, around),
            Expr::Unary(unary) => self.visit(&unary.expr, around),
            Expr::Subquery(subquery) => self.visit(&subquery.expr, around),
            Expr::VectorSelector(selector) => self.select(selector, around, None),
            Expr::MatrixSelector(matrix) => {
                let window = match format!("{}m", matrix.range.as_secs() / 60) {
                    minutes if minutes == RATE_INTERVAL => Window::Rate,
                    minutes if minutes == "1140m" => Window::Range,
                    _ => Window::Fixed,
                };
                self.select(&matrix.vs, around, Some(window));
            }
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
        }
    }

    fn select(&mut self, selector: &VectorSelector, around: &Around, window: Option<Window>) {
        assert!(selector.matchers.or_matchers.is_empty(), "{selector:?} has an `or` in its matchers");
        self.selectors.push(Selector {
            name: selector.name.clone().unwrap_or_default(),
            matchers: selector
                .matchers
                .matchers
                .iter()
                .map(|matcher| (matcher.name.clone(), matcher.value.clone()))
                .collect(),
            asked: around.asked.clone(),
            over: window.map(|window| (around.function.unwrap_or_default(), window)),
            quantile: around.quantile,
        });
    }
}

// === impl Around ===

impl Around {
    /// The innermost aggregation decides which labels must be there: an outer one can only ask for what it left.
    fn with(&self, modifier: Option<&LabelModifier>) -> Self {
        let mut asked = self.asked.clone();
        if let Some(LabelModifier::Include(labels)) = modifier {
            asked.extend(labels.labels.iter().cloned());
        }
        Self { asked, ..self.clone() }
    }
}

// === impl Selector ===

impl Selector {
    pub(super) fn matches_on(&self, label: &str) -> bool {
        self.matchers.iter().any(|(name, _)| name == label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_around_a_selector() {
        let query = read(
            r#"histogram_quantile(0.95, sum by (le, a) (rate(x_bucket{job="j"}[$__rate_interval]))) or max by (b) (y)"#,
        );
        let [x, y] = query.unwrap().selectors.try_into().unwrap();
        assert_eq!(x.name, "x_bucket");
        assert!(x.quantile && x.matches_on("job") && !x.matches_on("a"));
        assert_eq!(x.asked, BTreeSet::from(["le".to_owned(), "a".to_owned()]));
        assert_eq!(x.over, Some(("rate", Window::Rate)));
        assert!(!y.quantile && y.over.is_none() && y.asked.contains("b"));
    }

    #[test]
    fn tells_windows_apart() {
        let window = |query: &str| read(query).unwrap().selectors[0].over;
        assert_eq!(window("increase(x[$__range])"), Some(("increase", Window::Range)));
        assert_eq!(window("rate(x[5m])"), Some(("rate", Window::Fixed)));
    }

    #[test]
    fn what_is_no_query_is_refused() {
        assert!(read("sum by (a (x)").is_err());
        assert!(read("rate(x)").is_err());
    }
}
