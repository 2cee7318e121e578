// A TLS client that completes an incomplete chain by fetching the issuer's certificate (AIA, RFC 5280
// 4.2.2.1): start it with -Dcom.sun.security.enableAIAcaIssuers=true.
//
//   java AiaClient.java ADDRESS PORT ROOT_PEM NAME
import java.io.FileInputStream;
import java.net.Socket;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.List;
import javax.net.ssl.*;

public class AiaClient {
    public static void main(String[] args) throws Exception {
        KeyStore roots = KeyStore.getInstance(KeyStore.getDefaultType());
        roots.load(null);
        try (FileInputStream pem = new FileInputStream(args[2])) {
            roots.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(roots);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        System.out.println("ready");
        System.in.read();
        Socket plain = new Socket(args[0], Integer.parseInt(args[1]));
        SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket(plain, args[3], plain.getPort(), true);
        SSLParameters parameters = socket.getSSLParameters();
        parameters.setServerNames(List.of(new SNIHostName(args[3])));
        socket.setSSLParameters(parameters);
        try {
            socket.startHandshake();
            System.out.println("done");
        } catch (SSLException refused) {
            System.out.println("refused: " + refused.getMessage());
        }
    }
}
