// A TLS server whose event loop keeps reconnecting to databases that are gone, and whose SNI callback waits
// for one name: for a timer, or for a name server that does not answer.
//
//   tls_reconnect.js ADDRESS PORT CERT KEY SLOW_NAME timer|dns GONE_ADDRESS WAIT_MS
const dns = require('dns'), fs = require('fs'), net = require('net'), tls = require('tls');
const [address, port, cert, key, slow, how, gone, wait] = process.argv.slice(2);
const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
const context = tls.createSecureContext(options);
const resolver = new dns.Resolver({ timeout: Number(wait), tries: 1 });
resolver.setServers([gone]);
const SNICallback = (name, done) => {
  if (name !== slow) return done(null, context);
  if (how === 'timer') return setTimeout(() => done(null, context), Number(wait));
  resolver.resolve4('issuer.example', () => done(null, context));
};
const reconnect = () => {
  const socket = net.connect(6379, gone).on('error', () => {});
  setTimeout(() => { socket.destroy(); reconnect(); }, 900);
};
// One pool of connections, a tenth of a second apart.
if (how === 'timer') for (let n = 0; n < 9; n++) setTimeout(reconnect, n * 100);
const server = tls.createServer({ ...options, SNICallback }, (client) => client.on('error', () => {}));
server.listen(Number(port), address, () => console.log('ready'));
