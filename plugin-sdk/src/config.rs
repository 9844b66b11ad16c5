use std::str::FromStr;

/// What an endpoint configures its plugin with: names and texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config(Vec<(String, String)>);

impl Config {
    /// The given names and texts.
    pub fn new(entries: Vec<(String, String)>) -> Self {
        Self(entries)
    }

    /// The text of `name`, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The text of `name`.
    ///
    /// # Errors
    /// A sentence when it is missing.
    pub fn require(&self, name: &str) -> Result<&str, String> {
        self.get(name).ok_or_else(|| format!("`{name}` is missing in the plugin's config"))
    }

    /// The value of `name`, if it is there.
    ///
    /// # Errors
    /// A sentence when it is there but is no `T`.
    pub fn parse<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let parse = |it: &str| it.parse().map_err(|_| format!("`{name}` cannot be `{it}`"));
        self.get(name).map(parse).transpose()
    }

    /// The texts of `name`, separated by commas.
    pub fn list(&self, name: &str) -> Vec<String> {
        let items = self.get(name).unwrap_or_default().split(',').map(str::trim);
        items.filter(|it| !it.is_empty()).map(str::to_owned).collect()
    }
}
