import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.JsonNode;

/** An event as it is read and, with its verdict, written: fields have the names of the JSON. */
@JsonIgnoreProperties(ignoreUnknown = true)
public final class Event {
    public String id;
    public String org_unit;
    public String lead_id;
    public String original_lead_id;
    public String event_type;
    public JsonNode metadata;
    public String suppression_reason;
    public String created_at;

    boolean isComplete() {
        return id != null && org_unit != null && lead_id != null && event_type != null
            && metadata != null && created_at != null;
    }
}
