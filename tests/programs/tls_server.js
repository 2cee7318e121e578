// A TLS server whose SNI callback fetches over plain HTTP for one name, without blocking: the event loop
// goes on serving others.
//
//   tls_server.js ADDRESS PORT CERT KEY SLOW_NAME FETCHED_ADDRESS FETCHED_PORT TIMEOUT_MS
const fs = require('fs'), http = require('http'), tls = require('tls');
const [address, port, cert, key, slow, host, fetched, timeout] = process.argv.slice(2);
const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
const context = tls.createSecureContext(options);
const SNICallback = (name, done) => {
  if (name !== slow) return done(null, context);
  const request = http.get({ host, port: Number(fetched), path: '/issuer.der', timeout: Number(timeout) });
  request.on('timeout', () => request.destroy());
  request.on('error', () => done(null, context));
};
const server = tls.createServer({ ...options, SNICallback }, (client) => client.on('error', () => {}));
server.listen(Number(port), address, () => console.log('ready'));
