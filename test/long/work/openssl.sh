# OpenSSL: digests and ciphers of known data, keys made and used, its own benchmark's end.
python3 -c 'import hashlib
h = bytearray()
b = b"seed"
while len(h) < 3000000:
    b = hashlib.sha256(b).digest()
    h += b
open("data", "wb").write(h)'
for d in md5 sha1 sha224 sha256 sha384 sha512 sha3-256 sha3-512 shake256 blake2b512 blake2s256 \
	sm3 ripemd160; do
	openssl dgst -$d data
done
for c in aes-128-cbc aes-256-cbc aes-128-ctr aes-256-ctr aes-256-ofb aes-128-cfb camellia-256-cbc \
	aria-256-ctr chacha20 des-ede3-cbc sm4-cbc; do
	openssl enc -$c -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f \
		-iv 0f0e0d0c0b0a09080706050403020100 -in data -out out 2>/dev/null
	sha256sum <out
	openssl enc -d -$c -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f \
		-iv 0f0e0d0c0b0a09080706050403020100 -in out 2>/dev/null | cmp - data && echo "$c"
done
openssl genrsa -out rsa.pem 2048 2>/dev/null && openssl rsa -in rsa.pem -check -noout 2>&1
openssl dgst -sha256 -sign rsa.pem -out sig data &&
	openssl dgst -sha256 -verify <(openssl rsa -in rsa.pem -pubout 2>/dev/null) -signature sig data
for curve in prime256v1 secp384r1 secp521r1 secp256k1 brainpoolP256r1; do
	openssl ecparam -name $curve -genkey -noout -out ec.pem &&
		openssl dgst -sha256 -sign ec.pem -out sig data &&
		openssl ec -in ec.pem -pubout -out pub.pem 2>/dev/null &&
		openssl dgst -sha256 -verify pub.pem -signature sig data
done
for k in ed25519 ed448 x25519; do
	openssl genpkey -algorithm $k -out k.pem && echo "$k"
done
openssl prime 170141183460469231731687303715884105727
openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:p -kdfopt salt:s -kdfopt iter:20000 PBKDF2
openssl speed -seconds 1 -bytes 8192 -evp aes-128-gcm >/dev/null 2>&1
echo "speed aes $?"
openssl speed -seconds 1 rsa2048 ecdsap256 ed25519 >/dev/null 2>&1
echo "speed keys $?"
