//! Rules for nftables: a table of its own, for IPv4 and IPv6 at once.

use super::tool::run;
use super::{NAME, RedirectError, Rules};

const COMMAND: &str = "nft -f -";

/// The rules as `nft -f` reads them.
#[must_use]
pub fn text(rules: &Rules) -> String {
    let Rules {
        own_uid,
        uids,
        ports,
        to,
    } = rules;
    let (uids, ports) = (list(uids), list(ports));
    // The number is what `dstnat` stands for, which old versions do not know here.
    format!(
        "table inet {NAME} {{\n\
         \tchain output {{\n\
         \t\ttype nat hook output priority -100; policy accept;\n\
         \t\tmeta skuid {own_uid} accept\n\
         \t\tmeta skuid {{ {uids} }} tcp dport {{ {ports} }} redirect to :{to}\n\
         \t}}\n\
         }}\n"
    )
}

/// Installs the rules.
///
/// # Errors
/// [`RedirectError::Failed`].
pub fn apply(rules: &Rules) -> Result<(), RedirectError> {
    run(COMMAND, &text(rules))
}

/// Removes the table, if it is there.
///
/// # Errors
/// [`RedirectError::Failed`].
pub fn remove() -> Result<(), RedirectError> {
    // To remove what is not there is an error; to make what is there is none.
    run(
        COMMAND,
        &format!("table inet {NAME}\ndelete table inet {NAME}\n"),
    )
}

fn list<T: ToString>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::tests::rules;
    use super::*;

    #[test]
    fn the_sidecars_own_user_comes_first() {
        assert_eq!(
            text(&rules("--uid 1000,1001 --own-uid 7 --ports 80,8080 --to 9")),
            "table inet sidecod {\n\
             \tchain output {\n\
             \t\ttype nat hook output priority -100; policy accept;\n\
             \t\tmeta skuid 7 accept\n\
             \t\tmeta skuid { 1000, 1001 } tcp dport { 80, 8080 } redirect to :9\n\
             \t}\n\
             }\n"
        );
    }
}
