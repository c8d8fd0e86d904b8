//! Whose profiles these are, for stores that keep those of many.

use std::collections::BTreeMap;

use crate::error::PushError;

/// What all profiles of a process are stored under: the name of a service, and labels.
///
/// Labels of samples, such as a tenant, are in the profiles themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    pub(crate) service: String,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Series {
    /// Those of a service.
    ///
    /// # Errors
    /// [`PushError::Service`] for a name that is empty or has other characters than ASCII letters, digits, `_`, `-`, `.`
    /// and `/`.
    pub fn new(service: impl Into<String>) -> Result<Self, PushError> {
        let service = service.into();
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        if service.is_empty() || !service.chars().all(is_allowed) {
            return Err(PushError::Service { name: service });
        }
        Ok(Self { service, labels: BTreeMap::new() })
    }

    /// With a label, such as an instance or a region. Of several values for one name the last counts.
    ///
    /// # Errors
    /// [`PushError::LabelName`] for a name that is not of ASCII letters, digits and `_`, begins with a digit or is one
    /// that has a meaning; [`PushError::LabelValue`] for an empty value.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Result<Self, PushError> {
        let (name, value) = (name.into(), value.into());
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.starts_with(|c: char| !c.is_ascii_digit());
        if !is_name || ["__name__", "service_name"].contains(&name.as_str()) {
            return Err(PushError::LabelName { name });
        }
        if value.is_empty() {
            return Err(PushError::LabelValue { name, value, reason: "it is empty" });
        }
        self.labels.insert(name, value);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_stores_take() {
        for service in ["checkout", "a.b/c-d_9"] {
            assert_eq!(Series::new(service).unwrap().service, service);
        }
        for service in ["", "a b", "a{b=c}", "ä", "a\n"] {
            assert!(matches!(Series::new(service), Err(PushError::Service { .. })), "{service}");
        }
        for name in ["", "9a", "a-b", "a.b", "__name__", "service_name", "ä"] {
            let label = Series::new("a").unwrap().label(name, "x");
            assert!(matches!(label, Err(PushError::LabelName { .. })), "{name}");
        }
        assert!(Series::new("a").unwrap().label("b", "").is_err());
        let series = Series::new("a").unwrap().label("_b9", "old").unwrap().label("_b9", "new, ä}").unwrap();
        assert_eq!(series.labels, [("_b9".to_owned(), "new, ä}".to_owned())].into());
    }
}
