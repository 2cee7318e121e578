// A TLS server whose SNI callback waits for a timer for one name; whoever asks for another is answered at once.
//
//   tls_timer.js ADDRESS PORT CERT KEY SLOW_NAME WAIT_MS
const fs = require('fs'), https = require('https'), tls = require('tls');
const [address, port, cert, key, slow, wait] = process.argv.slice(2);
const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key), keepAliveTimeout: 60000 };
const context = tls.createSecureContext(options);
const SNICallback = (name, done) => {
  if (name === slow) setTimeout(() => done(null, context), Number(wait)); else done(null, context);
};
const server = https.createServer({ ...options, SNICallback }, (request, response) => response.end('served\n'));
server.listen(Number(port), address, () => console.log('ready'));
