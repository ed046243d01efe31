//! `--map-root OLD=ROOT[:PATH]`: directories of the old host as destinations. What no map covers is collected, so that
//! all that is missing is told at once. Does not look at any disk.

use std::collections::BTreeMap;

use fleet::project::Destination;

use crate::{app::quoted, fault::Faults, text::plural, units};

/// Names of a fault that are shown.
const NAMES_SHOWN_MAX: usize = 4;
/// The flag, for messages.
const FLAG: &str = "--map-root";

/// The maps, and what they leave open.
#[derive(Debug, Default)]
pub(super) struct Roots {
    /// Components of the old directory; the root, and a path below it.
    maps: Vec<(Vec<String>, String)>,
    /// Names of what lies there, by the directory that needs a map.
    missing: BTreeMap<String, Vec<String>>,
}

impl Roots {
    /// Reads the flags as typed.
    pub(super) fn read(typed: &[String], faults: &mut Faults) -> Self {
        let mut roots = Self::default();
        for text in typed {
            let Some((old, new)) = text.split_once('=') else {
                faults.add(FLAG, format_args!("{text:?}: write OLD=ROOT, as in /srv/mirror=a1"));
                continue;
            };
            let Ok(old) = components(old) else {
                faults.add(FLAG, format_args!("{text:?}: OLD must be an absolute path without .."));
                continue;
            };
            // Whatever lies below it has the grammar of a destination.
            let new = new.trim_end_matches(['/', ':']);
            let probe = if new.contains(':') { format!("{new}/x") } else { format!("{new}:x") };
            if let Err(bad) = probe.parse::<Destination>() {
                faults.add(FLAG, format_args!("{text:?}: {bad}"));
            } else if roots.maps.iter().any(|(known, _)| *known == old) {
                faults.add(FLAG, format_args!("{text:?}: this directory is mapped twice"));
            } else {
                roots.maps.push((old, new.to_owned()));
            }
        }
        roots
    }

    /// The destination of a directory by the longest map; `None`: none covers it, which is noted.
    ///
    /// # Errors
    /// Why no destination can be made of it, as the end of a sentence.
    pub(super) fn map(&mut self, name: &str, directory: &str) -> Result<Option<Destination>, String> {
        let parts = components(directory)?;
        let fitting = self.maps.iter().filter(|(old, _)| parts.starts_with(old));
        let Some((old, new)) = fitting.max_by_key(|(old, _)| old.len()) else {
            let parent = format!("/{}", parts[..parts.len().saturating_sub(1)].join("/"));
            self.missing.entry(parent).or_default().push(name.to_owned());
            return Ok(None);
        };
        let below = parts[old.len()..].join("/");
        let text = match (below.is_empty(), new.contains(':')) {
            (true, false) => {
                return Err("is a root itself; a project needs a directory below it".to_owned());
            }
            (true, true) => new.clone(),
            (false, true) => format!("{new}/{below}"),
            (false, false) => format!("{new}:{below}"),
        };
        text.parse().map(Some).map_err(|bad: fleet::project::BadDestination| format!("is {text:?}: {bad}"))
    }

    /// A flag for each directory that no map covers.
    pub(super) fn tell_missing(&self, faults: &mut Faults) {
        for (directory, names) in self.grouped() {
            let shown: Vec<String> =
                names.iter().take(NAMES_SHOWN_MAX).map(|name| units::clean(name)).collect();
            let more = if names.len() > NAMES_SHOWN_MAX { ", …" } else { "" };
            let text = format!(
                "{} in {directory:?} ({}{more}): add --map-root {}=ROOT",
                plural(names.len() as u64, "tree lies", "trees lie"),
                shown.join(", "),
                quoted(directory),
            );
            faults.add(FLAG, text);
        }
    }

    /// The flags that are missing, to be pasted.
    pub(super) fn flags(&self) -> String {
        let one = |directory: &&str| format!(" --map-root {}=ROOT", quoted(directory));
        self.grouped().keys().map(one).collect()
    }

    /// What lies below another directory that needs a map needs none of its own.
    fn grouped(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut grouped: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (directory, names) in &self.missing {
            let above = directory.match_indices('/').map(|(at, _)| &directory[..at]);
            let above =
                above.filter(|above| !above.is_empty()).find(|above| self.missing.contains_key(*above));
            let names = names.iter().map(String::as_str);
            grouped.entry(above.unwrap_or(directory)).or_default().extend(names);
        }
        grouped
    }
}

/// An absolute path's components, without empty ones and `.`.
///
/// # Errors
/// Why it has none, as the end of a sentence.
fn components(path: &str) -> Result<Vec<String>, String> {
    if !path.starts_with('/') {
        return Err("is no absolute path".to_owned());
    }
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    if parts.clone().any(|part| part == "..") {
        return Err("holds ..; write the path that is meant".to_owned());
    }
    Ok(parts.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_map_counts_and_all_that_is_missing_is_told() {
        let mut faults = Faults::default();
        let typed = ["/srv/mirror=a1", "/srv/mirror/big/=a2:pub", "/srv/mir=a3"].map(str::to_owned);
        let mut roots = Roots::read(&typed, &mut faults);
        assert!(faults.is_empty());
        for (directory, destination) in [
            ("/srv/mirror/debian/", "a1:debian"),
            ("/srv//mirror/./x/y", "a1:x/y"),
            ("/srv/mirror/big/z", "a2:pub/z"),
            ("/srv/mirror/big", "a2:pub"),
            ("/srv/mir/q", "a3:q"),
        ] {
            assert_eq!(roots.map("x", directory).unwrap().unwrap().to_string(), destination);
        }
        for directory in
            ["/srv/mirror", "/srv/mirror/a b", "/srv/mirror/../x", "rel/x", "/srv/mirror/.mirror/x"]
        {
            assert!(roots.map("x", directory).is_err(), "{directory}");
        }
        for name in ["a", "b", "c", "d", "e"] {
            assert_eq!(roots.map(name, &format!("/data/ftp/{name}")), Ok(None));
        }
        assert_eq!(roots.map("a", "/data/ftp/below/f"), Ok(None));
        assert_eq!(roots.map("one", "/it's/one"), Ok(None));
        roots.tell_missing(&mut faults);
        let told = faults.into_fault("nothing imported").to_string();
        assert!(
            told.contains("6 trees lie in \"/data/ftp\" (a, b, c, d, …): add --map-root /data/ftp=ROOT"),
            "{told}"
        );
        assert!(told.contains("1 tree lies in \"/it's\" (one): add --map-root '/it'\\''s'=ROOT"), "{told}");
    }

    #[test]
    fn flags_that_are_no_maps() {
        let mut faults = Faults::default();
        Roots::read(
            &["/srv", "srv=a1", "/a/../b=a1", "/a=", "/a=b c", "/a=a1", "/a/=a2"].map(str::to_owned),
            &mut faults,
        );
        assert_eq!(faults.into_fault("x").details.len(), 6);
    }
}
