#!/bin/sh
# Installs hearthgate from this folder: program, service (systemd or OpenRC), user and folders.
# `install.sh --remove` takes program and service away again and leaves configuration and state.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=${DESTDIR:-}
say() { printf 'hearthgate: %s\n' "$*"; }

if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
    say "run this as root" >&2
    exit 1
fi

has_systemd() { [ -d "$root/run/systemd/system" ] || [ -d "$root/lib/systemd/system" ] || [ -d "$root/usr/lib/systemd/system" ]; }
has_openrc() { [ -x "$root/sbin/openrc-run" ]; }

if [ "${1:-}" = --remove ]; then
    if has_systemd; then
        [ -n "$root" ] || systemctl disable --now hearthgate 2> /dev/null || true
        rm -f "$root/etc/systemd/system/hearthgate.service"
    fi
    if has_openrc; then
        [ -n "$root" ] || rc-service hearthgate stop 2> /dev/null || true
        [ -n "$root" ] || rc-update del hearthgate default 2> /dev/null || true
        rm -f "$root/etc/init.d/hearthgate"
    fi
    rm -f "$root/usr/bin/hearthgate"
    say "removed; /etc/hearthgate and /var/lib/hearthgate are left as they are"
    exit 0
fi

if [ -z "$root" ] && ! id hearthgate > /dev/null 2>&1; then
    if command -v useradd > /dev/null; then
        useradd --system --user-group --home-dir /var/lib/hearthgate --no-create-home --shell /usr/sbin/nologin hearthgate
    else
        addgroup -S hearthgate
        adduser -S -D -H -h /var/lib/hearthgate -s /sbin/nologin -G hearthgate hearthgate
    fi
fi

mkdir -p "$root/usr/bin" "$root/etc/hearthgate" "$root/var/lib/hearthgate"
chmod 0700 "$root/var/lib/hearthgate"
[ -n "$root" ] || chown hearthgate:hearthgate /var/lib/hearthgate
# Beside it first, then renamed: a running program is never written over.
cp "$here/hearthgate" "$root/usr/bin/.hearthgate.new"
chmod 0755 "$root/usr/bin/.hearthgate.new"
mv -f "$root/usr/bin/.hearthgate.new" "$root/usr/bin/hearthgate"

if has_systemd; then
    mkdir -p "$root/etc/systemd/system"
    cp "$here/systemd/hearthgate.service" "$root/etc/systemd/system/hearthgate.service"
    [ -n "$root" ] || systemctl daemon-reload
    start="systemctl enable --now hearthgate"
elif has_openrc; then
    mkdir -p "$root/etc/init.d" "$root/etc/conf.d"
    cp "$here/openrc/hearthgate.initd" "$root/etc/init.d/hearthgate"
    chmod 0755 "$root/etc/init.d/hearthgate"
    [ -e "$root/etc/conf.d/hearthgate" ] || cp "$here/openrc/hearthgate.confd" "$root/etc/conf.d/hearthgate"
    start="rc-update add hearthgate default && rc-service hearthgate start"
else
    say "neither systemd nor OpenRC is here: start it as you start other services" >&2
    start="/usr/bin/hearthgate --state /var/lib/hearthgate run --config /etc/hearthgate/hearthgate.toml --user hearthgate"
fi

say "installed. Next:"
[ -e "$root/etc/hearthgate/hearthgate.toml" ] ||
    say "  hearthgate --state /var/lib/hearthgate init --config /etc/hearthgate/hearthgate.toml"
say "  $start"
