#!/bin/sh
# Mounts a bucket as a folder with s3fs, and stays until it is unmounted: mount.sh BUCKET FOLDER
# ENDPOINT is the bucket's address, PASSWD the file with ACCESS_KEY:SECRET_KEY; OWNER may write (10001: facerelay).
set -eu
bucket=$1 folder=$2 owner=${OWNER:-10001}
umount -l "$folder" 2>/dev/null || true  # what one left that was killed: it answers nobody
mkdir -p "$folder"
# Without the mount the folder is nobody's to write to: a face beside the bucket would have a receipt that lies.
mountpoint -q "$folder" || chmod 0555 "$folder"
exec s3fs "$bucket" "$folder" -f \
  -o "passwd_file=${PASSWD:-/run/secrets/s3fs.passwd},url=${ENDPOINT:-http://bucket:8333}" \
  -o "use_path_request_style,uid=$owner,gid=$owner,umask=0027,allow_other,retries=3"
