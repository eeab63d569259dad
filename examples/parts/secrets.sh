#!/bin/sh
# Makes, once, what the parts of a recipe prove themselves with: secrets.sh EDGE CLOUD NAME USER
#   EDGE, CLOUD  folders, one for each side: neither holds what only the other needs
#   NAME         the cloud's broker as its clients call it: a host name or an address
#   USER         the edge's name at the cloud's broker
# Needs openssl and mosquitto_passwd.
set -eu
[ $# = 4 ] || { echo "usage: secrets.sh EDGE CLOUD NAME USER" >&2; exit 2; }
edge=$1 cloud=$2 name=$3 user=$4
[ ! -e "$cloud/ready" ] || exit 0
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
sh "$(dirname "$0")/../../docker/secrets.sh" "$made" "$name"
umask 077
mkdir -p "$edge" "$cloud"
cp "$made/edge-password" "$made/cloud-password" "$made/ca.crt" "$edge"
cp "$made/bucket-key" "$made/ca.crt" "$made/server.crt" "$made/server.key" "$cloud"
openssl rand -hex 24 | tr -d '\n' > "$cloud/store-password"

# Mosquitto keeps hashes of its own.
printf 'edge:%s\n' "$(cat "$edge/edge-password")" > "$edge/edge.passwd"
printf '%s:%s\n' "$user" "$(cat "$edge/cloud-password")" store "$(cat "$cloud/store-password")" > "$cloud/cloud.passwd"
mosquitto_passwd -U "$edge/edge.passwd"
mosquitto_passwd -U "$cloud/cloud.passwd"
printf 'facerelay:%s\n' "$(cat "$cloud/bucket-key")" > "$cloud/s3fs.passwd"

# Each folder is mounted for its side alone, by containers of different users; s3fs wants its file for itself.
chmod 0755 "$edge" "$cloud"
chmod 0444 "$edge"/* "$cloud"/*
chmod 0400 "$cloud/s3fs.passwd"
touch "$cloud/ready"
