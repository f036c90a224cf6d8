import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.streams.processor.StateStore;
import org.apache.kafka.streams.processor.StateStoreContext;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.internals.CacheFlushListener;
import org.apache.kafka.streams.state.internals.CachedStateStore;
import org.postgresql.PGConnection;

/**
 * The rows of a task on their way to Postgres, copied and inserted some thousand at a time.  To Kafka Streams this is a store with a
 * cache, which it flushes in each commit before it commits offsets: so no event is committed whose row is not.
 */
final class Rows implements StateStore, CachedStateStore<byte[], byte[]> {
    static final String NAME = "rows";
    private static final int MOST = 2_000;
    private static final String COPY = "COPY staged FROM STDIN";
    private static final String INSERT = "INSERT INTO events SELECT * FROM staged ON CONFLICT DO NOTHING";

    private final URI database;
    private final StringBuilder text = new StringBuilder(1 << 20);
    private int rows;
    private Connection connection;
    private PreparedStatement insert;

    private Rows(URI database) {
        this.database = database;
    }

    @Override
    public void init(StateStoreContext context, StateStore root) {
        context.register(root, (key, value) -> { });
        try {
            connection = connected();
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.execute("CREATE TEMP TABLE staged (LIKE events) ON COMMIT DELETE ROWS");
            }
            connection.commit();
            insert = connection.prepareStatement(INSERT);
        } catch (SQLException error) {
            throw new IllegalStateException(error);
        }
    }

    private Connection connected() throws SQLException {
        String[] login = database.getUserInfo().split(":", 2);
        Properties properties = new Properties();
        properties.setProperty("user", login[0]);
        properties.setProperty("password", login[1]);
        String address = database.getHost() + ":" + database.getPort() + database.getPath();
        return DriverManager.getConnection("jdbc:postgresql://" + address, properties);
    }

    void add(Event event) {
        append(event.org_unit).append('\t');
        append(event.id).append('\t');
        append(event.lead_id).append('\t');
        append(event.event_type).append('\t');
        append(event.metadata.toString()).append('\t');
        text.append(event.suppression_reason == null ? "\\N" : event.suppression_reason).append('\t');
        append(event.created_at).append('\n');
        if (++rows == MOST) {
            write();
        }
    }

    private StringBuilder append(String value) {
        for (int n = 0; n < value.length(); n++) {
            char one = value.charAt(n);
            switch (one) {
                case '\\' -> text.append("\\\\");
                case '\t' -> text.append("\\t");
                case '\n' -> text.append("\\n");
                case '\r' -> text.append("\\r");
                default -> text.append(one);
            }
        }
        return text;
    }

    private void write() {
        if (rows == 0) {
            return;
        }
        byte[] copied = text.toString().getBytes(StandardCharsets.UTF_8);
        try {
            connection.unwrap(PGConnection.class).getCopyAPI()
                .copyIn(COPY, new ByteArrayInputStream(copied), 1 << 20);
            insert.executeUpdate();
            connection.commit();
        } catch (SQLException | IOException error) {
            throw new IllegalStateException(error);
        }
        clearCache();
    }

    @Override
    public void flushCache() {
        write();
    }

    @Override
    public void clearCache() {
        rows = 0;
        text.setLength(0);
    }

    @Override
    public boolean setFlushListener(CacheFlushListener<byte[], byte[]> listener, boolean sendOldValues) {
        return false;
    }

    @Override
    public void close() {
        try {
            connection.close();
        } catch (SQLException error) {
            throw new IllegalStateException(error);
        }
    }

    @Override
    public String name() {
        return NAME;
    }

    @Override
    public boolean persistent() {
        return false;
    }

    @Override
    public boolean isOpen() {
        try {
            return connection != null && !connection.isClosed();
        } catch (SQLException error) {
            throw new IllegalStateException(error);
        }
    }

    /** One for each task, each with a connection of its own. */
    record Builder(URI database) implements StoreBuilder<Rows> {
        @Override
        public Rows build() {
            return new Rows(database);
        }

        @Override
        public String name() {
            return NAME;
        }

        @Override
        public boolean loggingEnabled() {
            return false;
        }

        @Override
        public Map<String, String> logConfig() {
            return Map.of();
        }

        @Override
        public StoreBuilder<Rows> withCachingEnabled() {
            return this;
        }

        @Override
        public StoreBuilder<Rows> withCachingDisabled() {
            return this;
        }

        @Override
        public StoreBuilder<Rows> withLoggingEnabled(Map<String, String> config) {
            return this;
        }

        @Override
        public StoreBuilder<Rows> withLoggingDisabled() {
            return this;
        }
    }
}
