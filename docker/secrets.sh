#!/bin/sh
# Passwords, and a certificate of an authority of one's own, as files: secrets.sh FOLDER [NAME…]
# With names (host names and addresses of the cloud's broker) all that a cloud needs; without, a site's own password.
# What is there already stays. The folder is for its owner alone; the files can be read by whoever they are mounted for.
set -eu
[ $# -ge 1 ] || { echo "usage: secrets.sh FOLDER [NAME…]" >&2; exit 2; }
folder=$1
shift
umask 077
mkdir -p "$folder"
cd "$folder"
[ -e .gitignore ] || echo '*' > .gitignore

password() {
  [ -e "$1" ] && return
  openssl rand -hex 24 | tr -d '\n' > "$1.new"
  mv "$1.new" "$1"
}

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

authority() {
  [ -e ca.key ] && return
  [ ! -e ca.crt ] || { echo "$folder/ca.crt is of another authority, whose key is not here" >&2; exit 1; }
  key ca.new
  openssl req -x509 -new -key ca.new -days 3650 -subj "/CN=facerelay authority" \
    -addext keyUsage=critical,keyCertSign,cRLSign -out ca.crt
  mv ca.new ca.key
}

certificate() {
  [ -e server.crt ] && return
  names=
  for name in "$@"; do
    case $name in
      *:*) kind=IP ;;
      *[!0-9.]*) kind=DNS ;;
      *) kind=IP ;;
    esac
    names="$names${names:+,}$kind:$name"
  done
  rm -f server.key
  key server.key
  openssl req -new -key server.key -subj "/CN=$1" -out server.csr
  printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$names" > server.ext
  openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -extfile server.ext \
    -out server.new 2>/dev/null
  mv server.new server.crt
  rm -f server.csr server.ext ca.srl
}

password edge-password
if [ $# -gt 0 ]; then
  password cloud-password
  password bucket-key
  authority
  certificate "$@" cloud-broker # its name among the containers, by which the store comes
fi
for name in edge-password cloud-password bucket-key ca.crt server.crt server.key; do
  [ ! -e "$name" ] || chmod 0444 "$name"
done
echo "secrets in $folder"
