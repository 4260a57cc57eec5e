//! Rules for iptables and ip6tables: a chain of its own in the table nat, and one jump to it.

use std::path::Path;

use super::tool::{run, succeeds};
use super::{NAME, RedirectError, Rules};

/// One for each family. `-w` waits while another program changes rules.
const COMMANDS: [&str; 2] = ["iptables -w -t nat", "ip6tables -w -t nat"];

/// The commands that install the rules, one a line.
#[must_use]
pub fn text(rules: &Rules) -> String {
    COMMANDS
        .map(|command| lines(command, rules))
        .concat()
        .join("\n")
        + "\n"
}

/// Installs the rules. What was installed is removed again if one cannot be.
///
/// # Errors
/// [`RedirectError::Failed`].
pub fn apply(rules: &Rules) -> Result<(), RedirectError> {
    let lines = families().flat_map(|command| lines(command, rules));
    for line in lines {
        if let Err(error) = run(&line, "") {
            remove()?;
            return Err(error);
        }
    }
    Ok(())
}

/// Removes the chains and the jumps to them, if they are there.
///
/// # Errors
/// [`RedirectError::Failed`].
pub fn remove() -> Result<(), RedirectError> {
    for command in families() {
        if !succeeds(&format!("{command} -S {NAME}"))? {
            continue;
        }
        let jump = format!("OUTPUT -p tcp -j {NAME}");
        while succeeds(&format!("{command} -C {jump}"))? {
            run(&format!("{command} -D {jump}"), "")?;
        }
        run(&format!("{command} -F {NAME}"), "")?;
        run(&format!("{command} -X {NAME}"), "")?;
    }
    Ok(())
}

/// The commands of the families that this system has.
fn families() -> impl Iterator<Item = &'static str> {
    let ipv6 = Path::new("/proc/net/if_inet6").exists();
    COMMANDS.into_iter().take(if ipv6 { 2 } else { 1 })
}

fn lines(command: &str, rules: &Rules) -> Vec<String> {
    let Rules {
        own_uid,
        uids,
        ports,
        to,
    } = rules;
    let mut lines = vec![
        format!("{command} -N {NAME}"),
        format!("{command} -A {NAME} -m owner --uid-owner {own_uid} -j RETURN"),
    ];
    for uid in uids {
        for port in ports {
            lines.push(format!(
                "{command} -A {NAME} -p tcp --dport {port} -m owner --uid-owner {uid} -j REDIRECT --to-ports {to}"
            ));
        }
    }
    lines.push(format!("{command} -A OUTPUT -p tcp -j {NAME}"));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::tests::rules;
    use super::*;

    #[test]
    fn both_families_have_every_rule_and_the_jump_comes_last() {
        let text = text(&rules("--uid 5,6 --own-uid 7 --ports 80 --to 9"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[0], "iptables -w -t nat -N sidecod");
        assert_eq!(
            lines[2],
            "iptables -w -t nat -A sidecod -p tcp --dport 80 -m owner --uid-owner 5 -j REDIRECT --to-ports 9"
        );
        assert_eq!(lines[9], "ip6tables -w -t nat -A OUTPUT -p tcp -j sidecod");
    }
}
