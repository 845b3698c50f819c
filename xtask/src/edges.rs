//! Which way the arrows point: `platform ← runtime ← io ← {net, tls} ← facade`.
//!
//! Cargo's metadata of the members is compared with one table. It applies to dependencies of every
//! kind, because a test that reaches upward is in the wrong crate.

use std::process::Command;

use serde_json::Value;

use crate::tree::{Offence, root};

/// A member of the workspace, as far as the checks need it.
#[derive(Debug, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// A dependency that a member declares.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Whether users of the member need it too, and not only its tests.
    pub(crate) shipped: bool,
}

/// Something that Cargo builds for a member.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// Cargo's name for it: `lib`, `test`, `bench`, `example` and others.
    pub(crate) kind: String,
}

/// Which of the others each member may use. The facade uses all; tests and examples use them
/// through it.
const ARROWS: &[(&str, &[&str])] = &[
    ("trio-platform", &[]),
    ("trio-runtime", &["trio-platform"]),
    ("trio-io", &["trio-platform", "trio-runtime"]),
    ("trio-net", &["trio-platform", "trio-runtime", "trio-io"]),
    ("trio-tls", &["trio-runtime", "trio-io"]),
    ("trio-macros", &[]),
    (
        "trio",
        &[
            "trio-platform",
            "trio-runtime",
            "trio-io",
            "trio-net",
            "trio-tls",
            "trio-macros",
        ],
    ),
    ("xtask", &[]),
];

/// The crates that talk to the kernel. Only `platform` may ship with them, so that nothing above
/// names an opcode.
const KERNEL: &[&str] = &["io-uring", "libc", "polling", "rustix", "socket2"];

/// Every dependency between `packages` that the table does not allow.
pub(crate) fn check(packages: &[Package]) -> Vec<Offence> {
    packages
        .iter()
        .flat_map(|package| check_package(package, packages))
        .collect()
}

fn check_package(package: &Package, packages: &[Package]) -> Vec<Offence> {
    let place = format!("Cargo.toml of {}", package.name);
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
        let remedy = "add it to `ARROWS` in xtask/src/edges.rs, and to ARCHITECTURE.md";
        return vec![Offence::new(
            place,
            "a member that the table of arrows does not know",
            remedy,
        )];
    };
    let mut offences = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        let ours = packages.iter().any(|other| other.name == name);
        if ours && !allowed.contains(&name) {
            let remedy = format!(
                "move what is needed down to a crate that both may use; {} may use: {}",
                package.name,
                if allowed.is_empty() {
                    "none of ours".to_owned()
                } else {
                    allowed.join(", ")
                },
            );
            offences.push(Offence::new(
                place.clone(),
                format!("`{name}` lies against the arrows"),
                remedy,
            ));
        }
        if dependency.shipped && KERNEL.contains(&name) && package.name != "trio-platform" {
            let remedy = "let `platform` offer it: nothing above speaks to the kernel";
            offences.push(Offence::new(
                place.clone(),
                format!("`{name}` is for trio-platform alone"),
                remedy,
            ));
        }
    }
    offences
}

impl Package {
    /// The members of the workspace. Does not use the network.
    pub(crate) fn all() -> Result<Vec<Self>, String> {
        let mut cargo = Command::new(cargo());
        cargo
            .current_dir(root())
            .args(["metadata", "--no-deps", "--format-version", "1"]);
        let output = cargo
            .output()
            .map_err(|error| format!("cannot run cargo metadata: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "cargo metadata failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
        let metadata = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("cargo metadata: {error}"))?;
        Ok(Self::parse(&metadata))
    }

    fn parse(metadata: &Value) -> Vec<Self> {
        let package = |value: &Value| Self {
            name: text(&value["name"]),
            dependencies: list(&value["dependencies"])
                .iter()
                .map(Dependency::parse)
                .collect(),
            targets: list(&value["targets"]).iter().map(Target::parse).collect(),
        };
        list(&metadata["packages"]).iter().map(package).collect()
    }

    /// The names of the targets of this kind.
    pub(crate) fn targets(&self, kind: &str) -> impl Iterator<Item = &str> {
        let targets = self
            .targets
            .iter()
            .filter(move |target| target.kind == kind);
        targets.map(|target| target.name.as_str())
    }
}

impl Dependency {
    fn parse(value: &Value) -> Self {
        Self {
            name: text(&value["name"]),
            shipped: value["kind"] != "dev",
        }
    }
}

impl Target {
    fn parse(value: &Value) -> Self {
        Self {
            name: text(&value["name"]),
            kind: text(&value["kind"][0]),
        }
    }
}

/// The Cargo that runs this program, or the one on the path.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members with their dependencies; a name in brackets is for tests only.
    #[track_caller]
    fn check_arrows(members: &[(&str, &str)], expected: &[&str]) {
        let packages: Vec<Package> = members
            .iter()
            .map(|(name, dependencies)| package(name, dependencies))
            .collect();
        let offences = check(&packages);
        let found: Vec<String> = offences
            .iter()
            .map(|offence| format!("{}: {}", offence.place, offence.what))
            .collect();
        assert_eq!(found, expected);
    }

    fn package(name: &str, dependencies: &str) -> Package {
        let dependencies = dependencies.split_whitespace().map(|word| Dependency {
            name: word.trim_matches(['[', ']']).to_owned(),
            shipped: !word.starts_with('['),
        });
        Package {
            name: name.to_owned(),
            dependencies: dependencies.collect(),
            targets: Vec::new(),
        }
    }

    #[test]
    fn arrows_point_down() {
        check_arrows(
            &[
                ("trio-platform", "libc slab"),
                ("trio-runtime", "trio-platform slab"),
                ("trio-io", "trio-platform trio-runtime"),
                ("trio-net", "trio-io"),
                ("trio-tls", "trio-io rustls"),
                ("trio", "trio-net trio-tls [rustix]"),
            ],
            &[],
        );
    }

    #[test]
    fn an_arrow_upward_or_sideways_is_reported() {
        check_arrows(
            &[
                ("trio-runtime", "[trio-io]"),
                ("trio-io", ""),
                ("trio-net", "trio-tls"),
                ("trio-tls", ""),
            ],
            &[
                "Cargo.toml of trio-runtime: `trio-io` lies against the arrows",
                "Cargo.toml of trio-net: `trio-tls` lies against the arrows",
            ],
        );
    }

    #[test]
    fn the_kernel_is_for_platform() {
        check_arrows(
            &[("trio-net", "socket2")],
            &["Cargo.toml of trio-net: `socket2` is for trio-platform alone"],
        );
    }

    #[test]
    fn a_new_member_joins_the_table() {
        check_arrows(
            &[("trio-extra", "")],
            &["Cargo.toml of trio-extra: a member that the table of arrows does not know"],
        );
    }

    #[test]
    fn metadata_is_read_as_cargo_writes_it() {
        let metadata = serde_json::json!({ "packages": [{
            "name": "trio",
            "dependencies": [{ "name": "slab", "kind": null }, { "name": "divan", "kind": "dev" }],
            "targets": [{ "name": "trio", "kind": ["lib"] }, { "name": "it", "kind": ["test"] }],
        }]});
        let packages = Package::parse(&metadata);
        let shipped: Vec<bool> = packages[0]
            .dependencies
            .iter()
            .map(|dependency| dependency.shipped)
            .collect();
        assert_eq!(shipped, [true, false]);
        assert_eq!(packages[0].targets("test").collect::<Vec<_>>(), ["it"]);
    }
}
